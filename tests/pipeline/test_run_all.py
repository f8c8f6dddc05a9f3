"""Whole runs of tiny models: what each step leaves, and every kind of base, student and data."""

from pathlib import Path

import pytest

from conftest import WORDS, Checkpoint, NewRun, open_run, read_json, write_rows
from metakd.pipeline.run_all import run_all


def test_every_step_leaves_a_manifest_and_nothing_half_made(finished_run: Path) -> None:
    steps = ["instance_weights", "meta_teacher", "shared_student", "students/books", "students/kitchen"]
    for step in (*steps, "fine_tuned_shared/books"):
        assert {"fingerprint", "seconds", "environment"} <= set(read_json(finished_run / step / "manifest.json")), step
    assert not [p for p in finished_run.rglob("*") if p.name.startswith((".", "checkpoint-"))]
    assert [path.name for path in (finished_run / "teacher_cache").iterdir()] == ["manifest.json"]
    assert "teacher_cache" in read_json(finished_run / "results.json")["seconds"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["roberta", "distilbert", "electra", "mpnet"])
def test_every_architecture_runs_through(checkpoint: Checkpoint, toy_data: Path, tmp_path: Path, kind: str) -> None:
    results = run_all(open_run(tmp_path / "run", toy_data, checkpoint(kind), baseline=False))
    assert list(results["average"]) == ["meta_teacher", "student", "tfidf"]


@pytest.mark.slow
def test_a_checkpoint_of_another_width_and_vocabulary_can_be_the_student(
    checkpoint: Checkpoint, toy_run: NewRun
) -> None:
    student = checkpoint("distilbert", words=[*WORDS[:5], *reversed(WORDS[5:])], dim=8, hidden_dim=16, n_layers=1)
    results = run_all(toy_run(student=str(student), baseline=False))
    assert results["average"]["student"]["parameters"] < results["average"]["meta_teacher"]["parameters"]


@pytest.mark.slow
def test_a_method_that_reads_labels_alone_needs_no_teacher(toy_run: NewRun) -> None:
    results = run_all(toy_run(method="fine_tuned_shared"))
    assert results["average"]["student"]["accuracy"] == results["average"]["fine_tuned_shared"]["accuracy"]


def test_one_domain_pairs_no_test_split_and_odd_names(base: Path, tmp_path: Path) -> None:
    """K = 1, sentence pairs, three classes of which dev lacks one, a domain called '../a b': scored on dev."""
    rows = [
        {"text": f"good page {i}", "text_pair": "bad lid", "label": ["x", "y", "z"][i % 3], "domain": "../a b"}
        for i in range(24)
    ]
    data = write_rows(tmp_path / "data" / "train.jsonl", rows).parent
    write_rows(data / "dev.jsonl", [row for row in rows if row["label"] != "z"])
    results = run_all(open_run(tmp_path / "run", data, base))
    assert results["split"] == "dev"
    assert [p.name for p in (tmp_path / "run" / "students").iterdir()] == ["%2E%2E%2Fa b"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "run"]
