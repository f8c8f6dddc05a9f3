"""`metakd label` as a user types it: what it writes, what it does not ask twice, and bad input."""

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import (
    Command,
    as_row,
    open_run,
    passed,
    read_rows,
    refused,
    save_language_model,
    taught,
    toy_examples,
    write_rows,
)
from metakd.labelling import local_model


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_language_model(tmp_path_factory.mktemp("llm") / "llm")


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with a head that predicts tokens, which sees those to come."""
    return save_language_model(tmp_path_factory.mktemp("masked") / "llm", "bert")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "texts.jsonl", [as_row(e) for e in toy_examples(40, 0, "t")])


def test_probabilities_are_written_for_soft_labels(
    metakd: Command, llm: Path, texts: Path, base: Path, tmp_path: Path
) -> None:
    """A run reads what was written; labels are as frequent as in the rows."""
    output = tmp_path / "answered" / "train.jsonl"
    output.parent.mkdir()
    out, _ = passed(metakd("label", "--data", texts, "--model", llm, "--output", output))
    rows, before = read_rows(output), read_rows(texts)
    assert [{k: v for k, v in row.items() if k != "probabilities"} for row in rows] == before
    assert all(sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5) for row in rows)
    share = sum(row["probabilities"]["positive"] for row in rows) / len(rows)
    assert share == pytest.approx(0.5, abs=1e-3)
    right = sum(max(row["probabilities"], key=row["probabilities"].get) == row["label"] for row in rows)
    assert f"40 texts, of which 40 have a label: {right / 40:.1%} right" in out
    write_rows(output.with_name("test.jsonl"), before)
    run = taught(open_run(tmp_path / "run", output.parent, base, soft_labels=True))
    assert run.data.has_soft_labels


def test_what_was_answered_is_not_asked_again(
    metakd: Command, llm: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after other options that come later, not after a kill between batches; other words are other questions."""
    output = tmp_path / "out.jsonl"
    passed(metakd("label", "--data", texts, "--model", llm, "--output", output))
    first, answers = output.read_text(), tmp_path / "out.answers"
    whole = answers.read_bytes()
    answers.write_bytes(whole[: whole.index(b"\n", len(whole) // 2) + 10])  # some, and a part of the next
    asked, scores = list[str](), local_model.LocalModel.scores

    def counted(self: local_model.LocalModel, prompts: list[str], words: list[str]) -> Any:
        asked.extend(prompt for prompt in prompts if prompt not in local_model.PROBES)
        return scores(self, prompts, words)

    monkeypatch.setattr(local_model.LocalModel, "scores", counted)
    passed(metakd("label", "--data", texts, "--model", llm, "--output", output, "--overwrite"))
    asked_first = len(asked)
    assert 0 < asked_first < len({row["text"] for row in read_rows(texts)})
    assert read_rows(answers)
    before, after = (
        [row["probabilities"]["positive"] for row in map(json.loads, text.splitlines())]
        for text in (first, output.read_text())
    )
    assert after == pytest.approx(before, abs=1e-4)
    passed(metakd("label", "--data", texts, "--model", llm, "--output", output, "--overwrite", "--no-correct-prior"))
    assert len(asked) == asked_first
    (tmp_path / "words.yaml").write_text("positive: lovely\nnegative: dull\n")
    words = ("--label-words", tmp_path / "words.yaml")
    passed(metakd("label", "--data", texts, "--model", llm, "--output", output, "--overwrite", *words))
    assert len(asked) > asked_first


def test_texts_without_labels(metakd: Command, llm: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"text": e.text, "domain": e.domain} for e in toy_examples(10, 0, "t")]
    data, output = write_rows(tmp_path / "new.jsonl", rows), tmp_path / "out.jsonl"
    said = refused(metakd("label", "--data", data, "--model", llm, "--output", output))
    assert "--labels: at least two different labels" in said
    passed(metakd("label", "--data", data, "--model", llm, "--output", output, "--labels", "good,bad"))
    assert "no row has a label, so all are taken to be equally frequent; if they are not" in caplog.text
    assert {*read_rows(output)[0]} == {"text", "domain", "probabilities"}


@pytest.mark.parametrize(
    ("files", "flags", "message"),
    [
        ({}, ["--labels", "positive"], "--labels: at least two different labels"),
        ({}, ["--labels", "good,bad"], "--labels: rows have other labels, negative, positive"),
        ({"p.txt": "What is it?"}, ["--prompt", "p.txt"], "p.txt: has no {text}, where the text goes"),
        ({"p.txt": "{text} {x}"}, ["--prompt", "p.txt"], "p.txt: {x} is unknown; fields are text, text_pair"),
        (
            {"p.txt": "{text} {text_pair}"},
            ["--prompt", "p.txt"],
            "p.txt: names {text_pair}, which some",
        ),
        ({}, ["--labels", "positive,,negative"], "--labels: one is empty"),
        ({}, ["--endpoint", ""], "--endpoint '': not an address"),
        ({}, ["--prompt", "none.txt"], "none.txt: cannot be read as text"),
        ({"w.yaml": "positive: good"}, ["--label-words", "w.yaml"], "no words for the label 'negative'"),
        (
            {"w.yaml": "a: b\npositive: c\nnegative: d"},
            ["--label-words", "w.yaml"],
            "that the data do not have: a",
        ),
        ({"w.yaml": "positive: a\nnegative: a"}, ["--label-words", "w.yaml"], "two labels have the same words"),
        ({"w.yaml": "[a, b]"}, ["--label-words", "w.yaml"], "w.yaml: expected 'name: value' lines"),
        ({"w.yaml": "positive: [great, good]\nnegative: bad"}, ["--label-words", "w.yaml"], "positive: write one text"),
        ({"w.yaml": "[a, b"}, ["--label-words", "w.yaml"], "w.yaml: not valid YAML"),
        ({"w.yaml": "positive: a\npositive: b"}, ["--label-words", "w.yaml"], "repeated keys: positive"),
        ({"out.jsonl": ""}, [], "out.jsonl: already exists"),
        ({"out.answers": "no answer\n"}, [], "out.answers: not answers of `metakd label`; move the file"),
        ({"t.jsonl": ""}, ["--data", "t.jsonl"], "no rows"),
        ({}, ["--model", "BASE"], "not a causal language model: weights"),
        ({}, ["--model", "nowhere/at-all"], "nowhere/at-all"),
        ({}, ["--model", "MASKED"], "a bert cannot be asked for labels"),
    ],
)
def test_bad_input(
    metakd: Command,
    llm: Path,
    texts: Path,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    masked: Path,
    files: dict[str, str],
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in files.items():
        Path(name).write_text(content)
    usual = {"--data": str(texts), "--model": str(llm), "--output": "out.jsonl"}
    usual |= dict(zip(flags[::2], flags[1::2], strict=True))
    usual["--model"] = {"BASE": str(base), "MASKED": str(masked)}.get(usual["--model"], usual["--model"])
    before = {path.name for path in tmp_path.iterdir()}
    assert message in refused(metakd("label", *[part for pair in usual.items() for part in pair]))
    assert {path.name for path in tmp_path.iterdir()} - {".out.answers.lock"} == before
