"""benchmarks/grids.py on toy data: its jobs, and that no row is lost or made twice."""

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml


def test_a_variant_that_another_experiment_ran_is_taken_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, toy_data: Path, checkpoint: Callable[..., Path]
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    grids = importlib.reload(importlib.import_module("grids"))
    settings = {"base": str(checkpoint()), "max_length": 16, "teacher_epochs": 1, "shared_epochs": 1}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    work, output = tmp_path / "work", tmp_path / "rows"
    vars(grids.options).update(amazon=toy_data, work=work, output=output, config=tmp_path / "tiny.yaml")
    for folder in (work / "teachers", output):
        folder.mkdir(parents=True)
    jobs = [*dict.fromkeys(grids.jobs())]
    assert len({job.slug for job in jobs}) == len(jobs)
    assert {job.name for job in jobs} == {*grids.EXPERIMENTS, "retention"}
    for name, count in (("main", 2), ("ablation", 4)):  # a row of the teacher and one of its students
        assert not grids.do_job(grids.Job(name, name, "meta_kd", 0))[2]
        assert grids.gather() == count
    main, ablation = ((output / f"{name}.jsonl").read_text("utf-8") for name in ("main", "ablation"))
    assert sorted(main.splitlines()) == sorted(ablation.splitlines())
    assert not [*(work / "models").glob("*")]
    assert "meta_kd: tune first" in grids.do_job(grids.Job("tuned", "main", "meta_kd", 1))[2]
