"""An exported student in an environment that holds what `pip install .` installs and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from conftest import Command, as_row, passed, read_rows, refused, toy_examples, write_rows

ROOT = Path(__file__).parents[1]


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
    """The Python of an environment with metakd's wheel; the packages it needs are links to what is installed here."""
    folder, build = tmp_path_factory.mktemp("light"), tmp_path_factory.mktemp("build")
    shutil.copytree(ROOT / "src", build / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, build)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", build]
    subprocess.run([*pip, build], check=True)
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name, package in needed("metakd", {}).items():
        tops = {file.parts[0] for file in package.files or [] if file.parts[0] not in ("..", "__pycache__")}
        for top in tops - {"metakd"} if name == "metakd" else tops:
            if not (packages / top).exists() and (place := Path(str(package.locate_file(top)))).exists():
                (packages / top).symlink_to(place)
    (wheel,) = build.glob("*.whl")
    shutil.unpack_archive(wheel, packages, "zip")
    return folder / "bin" / "python"


def run(python: Path, *words: object, cwd: Path) -> tuple[int, str, str]:
    command = [str(word) for word in (python, "-I", *words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_wheel_has_every_file_of_the_package(light: Path) -> None:
    (installed,) = light.parents[1].glob("lib/python*/site-packages/metakd")
    files = {
        path.relative_to(ROOT / "src" / "metakd") for path in (ROOT / "src" / "metakd").rglob("*") if path.is_file()
    }
    wanted = {path for path in files if "__pycache__" not in path.parts}
    assert {path.relative_to(installed) for path in installed.rglob("*") if path.is_file()} >= wanted


@pytest.mark.slow
def test_an_exported_student_works_where_torch_is_not_installed(
    light: Path, finished_run: Path, metakd: Command, tmp_path: Path
) -> None:
    passed(metakd("export", finished_run, "--output", tmp_path / "models", "--int8", "--force"))
    for missing in ("torch", "transformers", "sklearn", "onnx"):
        assert "ModuleNotFoundError" in run(light, "-c", f"import {missing}", cwd=tmp_path)[2]
    script = "from metakd import Classifier\n"
    script += "print(Classifier.from_pretrained('models/books').predict(['a lovely page'])[0].label)"
    assert passed(run(light, "-c", script, cwd=tmp_path))[0] == "positive\n"
    texts = write_rows(tmp_path / "new.jsonl", [{"text": e.text} for e in toy_examples(5, 3, "n")])
    command = ("-m", "metakd", "predict", "models/books", "--input", texts, "--output", "out.jsonl")
    passed(run(light, *command, cwd=tmp_path))
    assert len(read_rows(tmp_path / "out.jsonl")) == 5


def test_what_needs_torch_names_the_command_that_installs_it(light: Path, finished_run: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "new.jsonl", [as_row(e) for e in toy_examples(40, 0, "t")])
    predict = ("predict", finished_run / "students" / "books", "--input", source, "--output", "out.jsonl")
    data = ("--data", source, "--output", "o")
    alone = predict, ("inspect", source), ("methods",)
    for command in (("run", *data), ("run", "--dry-run", *data), ("weigh", *data), *alone):
        assert "pip install '.[train]'" in refused(run(light, "-m", "metakd", *command, cwd=tmp_path))
