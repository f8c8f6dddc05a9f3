"""benchmarks/gpu.py in a tiny form on the CPU, so that its one call on a lent GPU does not fail."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import read_json, write_toy

STEPS = ["weigh", "teach", "distill meta_kd", "distill fine_tuned_shared", "evaluate"]
STUDENTS = ["students", *(f"students, {how}" for how in ("profiled", "live teacher", "batch 16", "compiled"))]
CONFIG = """
student: layers=2
max_length: 16
batch_size: 8
teacher_epochs: 1
shared_epochs: 1
precision: bfloat16
allow_weak_teacher: true
"""


@pytest.fixture
def benchmark(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """benchmark('--minutes', '1') -> what is in its file then; nothing is scored or compiled, which takes long."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    data = write_toy(tmp_path / "data", train=64, dev=8, test=8)
    monkeypatch.setattr("metakd.pipeline.evaluate.evaluate", lambda run: {})
    monkeypatch.setattr(torch, "compile", lambda forward, **_: forward)
    script = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "gpu.py"))

    def call(*flags: str) -> dict[str, Any]:
        places = {"data": data, "base": base, "config": tmp_path / "config.yaml", "work": tmp_path, "batches": 16}
        words = [word for name, place in places.items() for word in (f"--{name}", str(place))]
        monkeypatch.setattr("sys.argv", ["gpu.py", *words, "--output", str(tmp_path / "gpu.json"), *flags])
        assert script["main"]() == 0, read_json(tmp_path / "gpu.json")
        return read_json(tmp_path / "gpu.json")

    return call


@pytest.mark.slow
def test_every_item_is_measured_once_and_none_after_the_minutes(benchmark: Callable[..., dict[str, Any]]) -> None:
    """64 texts in batches of 8 are 8 updates; the students' shared start has two epochs, with batches of 8 or 16.

    Linear layers of a student have 2 layers · (4 · 16 · 16 + 2 · 16 · 32) weights, each with a product and a sum for a
    token forwards and two backwards: 24,576 operations. Attention and the heads, for texts of 4 to 16 tokens, add less
    than a third.
    """
    results = benchmark("--minutes", "0")
    assert (results["items"], results["run"]["settings"]["seed"]) == ({}, 0)
    results = benchmark()
    items = results["items"]
    assert list(items) == [*STEPS, *STUDENTS]
    assert all(item["seconds"] > 0 for item in items.values())
    assert items["teach"]["trainings"]["teach all domains"]["steps"] == 8
    starts = {name: items[name]["trainings"]["meta_kd all domains: share"] for name in STUDENTS}
    assert [starts[name]["steps"] for name in STUDENTS] == [16, 16, 16, 8, 16]
    alone = items["distill fine_tuned_shared"]["trainings"]["fine_tuned_shared all domains: share"]
    assert 24_576 < alone["flops_per_step"] / alone["tokens_per_step"] < 4 / 3 * 24_576
    assert starts["students, live teacher"]["flops_per_step"] > 1.5 * starts["students"]["flops_per_step"]
    assert alone["share_of_peak"] is None
    assert alone["examples_per_second"] > 0
    profile = items["students, profiled"]["profile"]
    assert len(profile["operations"]) == 10
    assert all(0 < profile[name] < 1 for name in ("data", "teacher cache", "optimizer"))
    assert benchmark()["items"] == items
