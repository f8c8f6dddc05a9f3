"""The code of each step is that of its version; with a change comes the decision whether finished runs still count."""

import ast
import json
import sys
from pathlib import Path

import pytest

from metakd.utils.artifacts import STEP_VERSIONS

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import step_versions
from step_versions import DIGESTS, STEPS, VERSIONS, WITHOUT_EFFECT, changed, message, modules, path_of, plain, version


def test_a_change_of_a_steps_code_is_raised_or_waived() -> None:
    assert not changed(), message(changed())


def test_the_tool_reads_the_versions_that_runs_use() -> None:
    assert {step: version(step) for step in STEPS} == STEP_VERSIONS


def test_a_steps_modules_are_those_that_decide_its_numbers() -> None:
    steps = {step: {*modules(step)} for step in STEPS}
    assert {"prototypes", "models.forward_passes", "data.tokenization"} <= steps["weigh"]
    assert {"losses", "training.trainer", "models.meta_teacher"} <= steps["teach"]
    assert {"losses", "methods.hrkd", "training.teacher_cache", "runs.extra_texts", "data.splits"} <= steps["distill"]
    assert {"evaluation.costs", "export.onnx_graph", "inference.onnx_backend"} <= steps["fit"]
    assert "methods.hrkd" not in steps["weigh"] | steps["teach"] | steps["fit"]
    assert all(path_of(name).is_file() for name in WITHOUT_EFFECT)


@pytest.mark.parametrize(
    ("code", "same"),
    [
        ('"""Other words."""\n\n\ndef f(x):\n    """More."""\n    return x + 1  # more', True),
        ("def f(x): return (x + 1)", True),
        ("def f(x): return x + 2", False),
        ("def f(x, y=None): return x + 1", False),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(code: str, same: bool) -> None:
    before = '"""Words."""\ndef f(x):\n    return x + 1'
    assert (plain(ast.parse(code)) == plain(ast.parse(before))) is same


@pytest.mark.slow
def test_a_version_is_raised_and_a_change_is_waived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On copies of the two files; digests that a merge has left in conflict are written again."""

    def tool(*options: str) -> int:
        monkeypatch.setattr("sys.argv", ["step_versions.py", *options])
        return step_versions.main()

    for name, path in (("DIGESTS", DIGESTS), ("VERSIONS", VERSIONS)):
        monkeypatch.setattr(step_versions, name, tmp_path / path.name)
        (tmp_path / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    before, digests = VERSIONS.read_text(encoding="utf-8"), tmp_path / DIGESTS.name
    assert tool() == 0
    known = json.loads(digests.read_text())
    digests.write_text(json.dumps(known | {"teach": {"version": version("teach"), "digest": "of other code"}}))
    assert tool() == 1
    assert "--raise teach\n" in capsys.readouterr().out
    assert tool("--waive", "teach") == 0
    assert json.loads(digests.read_text()) == known
    assert (tmp_path / VERSIONS.name).read_text(encoding="utf-8") == before
    assert tool("--raise", "teach") == 0
    assert version("teach") == STEP_VERSIONS["teach"] + 1
    digests.write_text("<<<<<<< ours")
    assert tool("--waive", "weigh") == 1
    assert tool("--waive", *STEPS) == 0
