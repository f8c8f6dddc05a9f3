"""The same seed on the same machine gives the same bits, and a run can be compared with its repetition later."""

import json
import shutil
from pathlib import Path

import pytest

from conftest import Command, as_row, passed, read_json, refused, toy_examples, write_rows
from metakd.data.samplers import LengthBatches
from metakd.pipeline import reproduce
from metakd.utils.artifacts import changed_files, verified_manifest

QUICK = [
    *("--allow-weak-teacher", "--student", "layers=2", "--max-length", "16", "--batch-size", "32", "--track", "none"),
    *("--teacher-epochs", "1", "--shared-epochs", "1", "--match-epochs", "2", "--stages", "two"),
    *("--dropout", "0.1", "--teacher-tries", "1"),
]


def write_data(folder: Path, longest: int = 0) -> Path:
    """Train and dev rows, with up to `longest` words more."""
    for seed, (split, count) in enumerate({"train": 64, "dev": 16}.items()):
        rows = [as_row(e) for e in toy_examples(count, seed, split)]
        longer = [row | {"text": row["text"] + " page" * (n % (longest + 1))} for n, row in enumerate(rows)]
        write_rows(folder / f"{split}.jsonl", longer)
    return folder


@pytest.mark.slow
def test_a_run_is_repeated(metakd: Command, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's manifest alone says what to repeat, bit for bit; in another order of batches all models differ."""
    folder, rows = tmp_path / "run", write_data(tmp_path / "rows")
    base = Path(shutil.copytree(base, tmp_path / "base"))
    passed(metakd("run", "--data", rows, "--base", base, "--output", folder, *QUICK))
    out, _ = passed(metakd("reproduce", folder))
    assert "run-reproduced is the same as" in out
    for name in ("meta_teacher", "students/books", "fine_tuned_shared/kitchen", "results.json", "predictions.jsonl"):
        assert name in out
    assert "already has a finished run" in refused(metakd("reproduce", folder))
    assert "is the run itself" in refused(metakd("reproduce", folder, "--output", folder))
    moved = rows.rename(tmp_path / "moved")
    out, _ = passed(metakd("reproduce", folder, "--data", moved, "--output", tmp_path / "of-moved"))
    assert "of-moved is the same as" in out
    moved.rename(rows)

    manifest = read_json(folder / "manifest.json")
    assert {"steps", "run", "environment", "files", "seconds"} <= set(manifest)
    facts = manifest["environment"]
    expected = "python versions system processor bfloat16 cores memory_gb threads gpu commit"
    assert {*expected.split()} <= {*facts}
    assert {"metakd", "torch", "transformers", "numpy"} <= set(facts["versions"])
    assert facts["threads"] >= 1
    assert manifest["run"]["settings"]["seed"] == 0
    assert set(manifest["run"]["models"]["base"]) >= {"model.safetensors", "config.json", "tokenizer.json"}
    assert set(manifest["files"]) == {"results.json", "results.md", "predictions.jsonl", "corpus.json"}

    with monkeypatch.context() as patch:
        patch.setattr(LengthBatches, "set_epoch", lambda self, epoch: setattr(self, "epoch", epoch + 7))
        code, _, err = metakd("reproduce", folder, "--output", tmp_path / "other")
    assert code == 1
    assert "other differs from" in err
    (teacher,) = [row for row in err.splitlines() if row.startswith("meta_teacher: domain_head.safetensors, model.")]
    assert "log" in teacher.split(", ")
    assert "instance_weights:" not in err
    assert "Traceback" not in err

    third = ("reproduce", folder, "--output", tmp_path / "third")
    for path, name in ((rows / "train.jsonl", "data"), (base / "config.json", "base")):
        path.write_text(path.read_text(encoding="utf-8").replace("very", "quite") + "\n", encoding="utf-8")
        assert f"{name} {path.parent}: not the" in refused(metakd(*third))
    (folder / "students" / "books" / "model.safetensors").write_bytes(b"torn")
    assert "changed since the run was finished: students/books" in refused(metakd(*third))
    (folder / "manifest.json").unlink()
    assert "no finished run" in refused(metakd(*third))
    assert not (tmp_path / "third").exists()


def test_values_are_compared_but_for_times(tmp_path: Path) -> None:
    one = {"a": {"accuracy": 0.5, "latency_ms": {"median": 1.0}}, "seconds": 3, "files": {"x": "1"}, "b": [1, 2]}
    two = {"a": {"accuracy": 0.25, "latency_ms": {"median": 2.0}}, "seconds": 4, "files": {"x": "2"}, "b": [1, 3]}
    assert reproduce._unlike(one, two) == ["a.accuracy", "b"]
    assert reproduce._unlike(one, one) == []
    assert reproduce._unlike({"a": 1}, {}) == ["a"]


def test_changed_files_are_noticed(finished_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(shutil.copytree(finished_run / "students" / "books", tmp_path / "books"))
    manifest = verified_manifest(folder)
    assert not changed_files(folder, manifest)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").unlink()
    assert sorted(changed_files(folder, manifest)) == ["config.json", "tokenizer.json"]
    assert verified_manifest(folder) is None
    assert "counts as unfinished" in caplog.text
    (folder / "manifest.json").write_text(json.dumps({"step": "distill"}))
    assert verified_manifest(folder) is None


@pytest.mark.slow
def test_a_student_made_again_has_the_bits_of_the_first(metakd: Command, base: Path, tmp_path: Path) -> None:
    """Its texts alone would be batched otherwise, and for its one pass none of the teacher's layers would be kept."""
    folder, rows = tmp_path / "run", write_data(tmp_path / "rows", longest=8)
    joint = ("--stages", "joint", "--match-epochs", "0", "--precision", "bfloat16", "--no-baseline")
    run = ("run", "--data", rows, "--base", base, "--output", folder, *QUICK, *joint)
    passed(metakd(*run))
    student = folder / "students" / "books"
    first = (student / "model.safetensors").read_bytes()
    shutil.rmtree(student)
    passed(metakd(*run, "--resume"))
    assert (student / "model.safetensors").read_bytes() == first
