"""benchmarks/grids.py: what there is to do, and that no row is lost or made twice."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def grids(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, toy_data: Path, checkpoint: Callable[..., Path]) -> Any:
    """The script, asked to work on toy data with a tiny base."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.reload(importlib.import_module("grids"))
    settings = {"base": str(checkpoint()), "max_length": 16, "teacher_epochs": 1, "shared_epochs": 1}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    vars(module.asked).update(
        amazon=toy_data, work=tmp_path / "work", output=tmp_path / "rows", config=tmp_path / "tiny.yaml"
    )
    for folder in ("work/teachers", "rows"):
        (tmp_path / folder).mkdir(parents=True)
    return module


def test_every_job_has_a_folder_of_its_own(grids: Any) -> None:
    jobs = [*dict.fromkeys(grids.jobs())]
    assert len({job.slug for job in jobs}) == len(jobs)
    assert {job.name for job in jobs} == {*grids.EXPERIMENTS, "retention"}


def test_a_line_that_another_experiment_came_to_is_taken_over(grids: Any, tmp_path: Path) -> None:
    _, _, wrong = grids.do_job(grids.Job("main", "main", "meta_kd", 0))
    assert not wrong
    assert grids.gather() == 2  # of the teacher and of its students
    same = grids.Job("ablation", "ablation", "meta_kd", 0)
    assert not grids.do_job(same)[2]
    assert grids.gather() == 4
    first, second = ((tmp_path / "rows" / f"{name}.jsonl").read_text("utf-8") for name in ("main", "ablation"))
    assert sorted(first.splitlines()) == sorted(second.splitlines())
    assert not [*(tmp_path / "work" / "models").glob("*")]


def test_a_tuned_line_waits_for_its_trials(grids: Any) -> None:
    _, _, wrong = grids.do_job(grids.Job("tuned", "main", "meta_kd", 1))
    assert "meta_kd: tune first" in wrong


def test_the_row_of_the_first_file_stays_and_a_torn_one_is_none(grids: Any, tmp_path: Path) -> None:
    for name, keys, torn in (("one", "a", '{"key": "c"'), ("two", "ab", "")):
        row = {"variant": "\u2028 is no end", "seed": 0, "right": {}, "environment": {"versions": {}, "commit": name}}
        text = "".join(json.dumps({"key": key} | row, ensure_ascii=False) + "\n" for key in keys)
        (tmp_path / name).write_text(text + torn, encoding="utf-8")
    found = grids.rows_in([tmp_path / "one", tmp_path / "two"])
    assert {key: row["environment"]["commit"] for key, row in found.items()} == {"a": "one", "b": "two"}
    assert (tmp_path / "one").read_text(encoding="utf-8").endswith('"c"')  # who reads changes nothing
