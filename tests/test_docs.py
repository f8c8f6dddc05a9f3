"""What the docs show is what happens."""

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import FAST
from metakd import Settings, methods
from metakd.config import read_settings_file
from metakd.domains import load_dataset
from metakd.results import markdown_table

ROOT = Path(__file__).parents[1]


def test_the_settings_page_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "docs" / "settings_table.py")]
    made = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT / "src")})
    assert made.stdout == (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


def test_the_papers_settings_are_settings() -> None:
    settings = Settings.build(read_settings_file(ROOT / "examples" / "paper.yaml"))
    assert (settings.shared_epochs, settings.match_epochs, settings.predict_epochs) == (0, 10, 3)


def test_a_method_is_added_in_one_file_as_the_docs_show(
    metakd: Callable[..., Any],
    checkpoint: Callable[..., Path],
    toy_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The class in docs/methods.md, put into the dict, runs through every step; the pipeline is not touched."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "methods.md").read_text(encoding="utf-8"), re.S)
    namespace: dict[str, Any] = {"__name__": "example"}
    monkeypatch.setitem(sys.modules, "example", sys.modules[__name__])
    exec(compile(code, "methods.md", "exec"), namespace)
    monkeypatch.setitem(methods.METHODS, "logit_kd", namespace["LogitKD"])
    base = ("--data", toy_data, "--base", checkpoint(), "--output", tmp_path / "run", "--method", "logit_kd")
    code_, out, err = metakd("run", *base, *FAST, "--no-rival")
    assert code_ == 0, err
    assert "student" in out
    assert (tmp_path / "run" / "students" / "books" / "model.safetensors").is_file()
    assert not (tmp_path / "run" / "shared_student").exists()


def test_every_link_and_file_in_the_docs_is_there() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_readme_commands_and_flags_exist(metakd: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"^metakd (\w+)(.*)$", text, re.M)
    assert {name for name, _ in commands} >= {"run", "predict", "evaluate"}
    for name, rest in commands:
        code, out, _ = metakd(name, "--help")
        assert code == 0
        for flag in re.findall(r"--[a-z0-9-]+", rest):
            assert flag in out, f"metakd {name} {flag}"


def test_readme_python_runs(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's Python, on the folder that its command would have made."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(finished_run)
    exec(compile(code, "README.md", "exec"), {})


def test_the_example_runs(checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """examples/four_steps.py word for word, but with a tiny encoder as the default base."""
    from metakd import config

    monkeypatch.chdir(tmp_path)
    small = {"base": str(checkpoint()), "max_length": 40, "student": "layers=2", "allow_weak_teacher": True}
    monkeypatch.setattr("metakd.Settings", lambda **given: config.Settings.build(small | given))
    exec(compile((ROOT / "examples" / "four_steps.py").read_text(encoding="utf-8"), "four_steps.py", "exec"), {})
    assert (tmp_path / "runs" / "example" / "results.json").is_file()


def test_the_tables_of_the_readme_are_those_of_the_committed_results() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    demo, amazon = (
        json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("demo", "amazon")
    )
    assert markdown_table(demo).split("\n\n")[0] in readme
    script = runpy.run_path(str(ROOT / "benchmarks" / "amazon.py"))
    assert script["table"](script["over_seeds"](amazon["seeds"])) in readme
    assert len(amazon["seeds"]) == 3


def test_the_demo_corpus_is_what_it_is_said_to_be() -> None:
    """Four domains, both classes evenly, at least 100 reviews and 50 test reviews each, no text twice."""
    data = load_dataset(ROOT / "src" / "metakd" / "demo_data")
    assert data.domains == ["books", "electronics", "films", "kitchen"]
    rows = [(split, e) for split, examples in data.splits.items() for e in examples]
    assert len({e.text for _, e in rows}) == len(rows) == 800
    for domain in data.domains:
        for split, least in (("train", 100), ("dev", 30), ("test", 50)):
            own = [e for s, e in rows if s == split and e.domain == domain]
            assert len(own) >= least
            assert sum(e.label == "positive" for e in own) * 2 == len(own)
    assert all(15 <= len(e.text.split()) <= 60 for _, e in rows)
    openings = [" ".join(e.text.split()[:4]).lower() for _, e in rows]
    assert len(openings) - len(set(openings)) <= 8
