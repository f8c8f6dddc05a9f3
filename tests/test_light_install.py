"""An exported student in an environment that holds what `pip install metakd` declares and nothing else."""

from __future__ import annotations

import subprocess
import venv
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import metakd
from conftest import toy_examples, write_rows

SOURCE = Path(metakd.__file__).parent
Command = Callable[..., Any]


def needed(name: str, known: dict[str, metadata.Distribution]) -> dict[str, metadata.Distribution]:
    """The package and all that it requires without extras, by name; `known` grows."""
    package = metadata.distribution(name)
    key = package.metadata["Name"].lower()
    if key not in known:
        known[key] = package
        for requirement in map(Requirement, package.requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed(requirement.name, known)
    return known


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment whose packages are links to what is installed here."""
    folder = tmp_path_factory.mktemp("light")
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name, package in needed("metakd", {}).items():
        tops = {file.parts[0] for file in package.files or [] if file.parts[0] not in ("..", "__pycache__")}
        for top in tops - {"metakd"} if name == "metakd" else tops:
            if not (packages / top).exists() and (place := Path(str(package.locate_file(top)))).exists():
                (packages / top).symlink_to(place)
    (packages / "metakd").symlink_to(SOURCE)
    return folder / "bin" / "python"


def run(python: Path, *words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in (python, "-I", *words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_an_exported_student_works_where_torch_is_not_installed(
    light: Path, finished_run: Path, metakd: Command, tmp_path: Path
) -> None:
    code, _, err = metakd("export", finished_run, "--output", tmp_path / "models", "--int8", "--force")
    assert code == 0, err
    for missing in ("torch", "transformers", "sklearn", "onnx"):
        assert "ModuleNotFoundError" in run(light, "-c", f"import {missing}", cwd=tmp_path).stderr
    script = "from metakd import Classifier; print(Classifier.load('models/books').predict(['a lovely page'])[0].label)"
    done = run(light, "-c", script, cwd=tmp_path)
    assert done.stdout.strip() == "positive", done.stderr
    texts = write_rows(tmp_path / "new.jsonl", [{"text": e.text} for e in toy_examples(5, 3, "n")])
    command = ("-m", "metakd", "predict", "models/books", "--input", texts, "--output", "out.jsonl")
    done = run(light, *command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()) == 5


def test_what_needs_torch_names_the_command_that_installs_it(light: Path, finished_run: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "new.jsonl", [{"text": "a page"}])
    student = finished_run / "students" / "books"
    done = run(light, "-m", "metakd", "predict", student, "--input", source, "--output", "out.jsonl", cwd=tmp_path)
    assert done.returncode == 2
    assert "pip install 'metakd[train]'" in done.stderr
    assert "Traceback" not in done.stderr
    done = run(light, "-m", "metakd", "inspect", source, cwd=tmp_path)
    assert done.returncode in (0, 2)
    assert "Traceback" not in done.stderr
