"""Every command and every block of Python in README and docs runs as it stands, page by page, offline.

Only what is slow or far away is replaced: models of the hub by folders of their names, and defaults by quick ones (a
tiny encoder, one epoch, 16 tokens, any teacher). Other programs' lines (NOT_OURS) are not repeated here.
"""

import re
import shlex
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from conftest import (
    Command,
    as_row,
    multinli_rows,
    save_checkpoint,
    save_language_model,
    toy_examples,
    write_release,
    write_rows,
)
from metakd import Settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\S+)", re.M)
NO_CODE = {"{toctree}", "{image}", "{eval-rst}", "js", "yaml"}  # the like of js: tests/clients/classify.mjs
BLOCK = re.compile(r"^```(shell|python)\n(.*?)^```", re.M | re.S)
NOT_OURS = ("make", "pip", "python3", "source", "cp", "hf", "torchrun", "accelerate")
CODE_RUN_ELSEWHERE = ("methods.md",)  # its Python is run by test_docs.py, in its place
QUICK = {"max_length": 16, "student": "layers=2", "teacher_epochs": 1, "shared_epochs": 1}
QUICK |= {"predict_epochs": 1, "allow_weak_teacher": True}


@pytest.fixture
def quick_defaults(base: Path) -> Iterator[None]:
    values = {**QUICK, "base": str(base)}
    before = {name: Settings.model_fields[name].default for name in values}
    for defaults in (values, before):
        for name, value in defaults.items():
            Settings.model_fields[name].default = value
        Settings.model_rebuild(force=True)
        if defaults is values:
            yield


@pytest.fixture
def playground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished_run: Path) -> Path:
    """A folder with everything that the pages name."""
    monkeypatch.chdir(tmp_path)
    rows = [as_row(e) for e in toy_examples(48, 0, "t")]
    rows[0]["text"] += " für Köche"
    for split, part in (("train", rows), ("dev", rows[:16]), ("test", rows[:16])):
        write_rows(Path("reviews") / f"{split}.jsonl", part)
    frame = pd.DataFrame(rows)
    frame.to_csv("reviews.csv", index=False)
    frame.to_csv("old.csv", index=False, encoding="cp1252")
    labels = {
        "refund": frame["label"] == "positive",
        "delivery": frame["label"] == "negative",
        "app": frame.index % 3 == 0,
    }
    frame.drop(columns="label").assign(**labels).to_csv("tickets.csv", index=False)
    german = {"text": "Kommentar", "label": "Note", "domain": "Abteilung"}
    frame.rename(columns=german).to_csv("export.csv", index=False, sep=";", encoding="utf-8-sig")
    write_rows(Path("other.jsonl"), rows[:16])
    write_rows(Path("new.jsonl"), [{"text": row["text"]} for row in rows])
    frame[["text", "domain"]].to_csv("new.csv", index=False)
    write_rows(Path("more.jsonl"), [{"text": e.text, "domain": e.domain} for e in toy_examples(20, 5, "u")])
    answered = [row | {"probabilities": {"positive": 0.9, "negative": 0.1}} for row in rows]
    for split, part in (("train", answered), ("test", rows[:16])):
        write_rows(Path("answered") / f"{split}.jsonl", part)
    Path("my.yaml").write_text("gamma2: 0.1\n")
    save_checkpoint(Path("bert-base-uncased"))
    save_checkpoint(Path("huawei-noah/TinyBERT_General_4L_312D"), hidden_size=8)
    save_language_model(Path("HuggingFaceTB/SmolLM2-135M"))
    shutil.copytree(finished_run / "meta_teacher", "my-classifier")
    for domain in ("books", "kitchen"):
        shutil.copytree(finished_run / "students" / domain, f"my-{domain}")
    with tarfile.open("domain_sentiment_data.tar.gz", "w:gz") as archive:
        archive.add(write_release(Path("raw"), 20), "sorted_data_acl")
    for split in ("train", "dev_matched"):
        write_rows(Path("multinli_1.0") / f"multinli_1.0_{split}.jsonl", multinli_rows())
    for name in ("demo", "demo-again"):
        shutil.copytree(finished_run, Path("runs") / name)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_does_what_it_says(page: Path, metakd: Command, request: pytest.FixtureRequest) -> None:
    text = page.read_text(encoding="utf-8")
    assert set(FENCE.findall(text)) <= {"shell", "python"} | NO_CODE
    blocks = BLOCK.findall(text)
    if not blocks or page.name in CODE_RUN_ELSEWHERE:
        return
    request.getfixturevalue("quick_defaults")
    request.getfixturevalue("playground")
    names: dict[str, Any] = {}
    for language, block in blocks:
        if language == "python":
            exec(compile(block, page.name, "exec"), names)
            continue
        for command in block.replace("\\\n", " ").splitlines():
            words = shlex.split(command, comments=True)
            if words and words[0] not in NOT_OURS:
                assert words[0] == "metakd", command
                code, _, err = metakd(*words[1:])
                assert code == 0, f"{command}\n{err}"
