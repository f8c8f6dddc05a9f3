"""The same seed on the same machine gives the same bits, and a run can be held to that later."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import as_row, toy_examples, write_rows
from metakd.data.samplers import LengthBatches
from metakd.pipeline import reproduce
from metakd.utils.artifacts import changed_files, read_manifest, read_whole
from metakd.utils.environment import environment

Command = Callable[..., tuple[int, str, str]]
QUICK = [
    *("--allow-weak-teacher", "--student", "layers=2", "--max-length", "16", "--batch-size", "32", "--track", "none"),
    *(
        "--teacher-epochs",
        "1",
        "--shared-epochs",
        "1",
        "--stages",
        "two",
        "--match-epochs",
        "2",
        "--bootstrap",
        "100",
        "--dropout",
        "0.1",
    ),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for seed, (split, count) in enumerate({"train": 64, "dev": 16}.items()):
        write_rows(folder / f"{split}.jsonl", [as_row(e) for e in toy_examples(count, seed, split)])
    return folder


def test_a_run_is_repeated_bit_for_bit_and_a_difference_is_named(
    metakd: Command,
    checkpoint: Callable[..., Path],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run's manifest alone says what to repeat; batches in another order make every model another one."""
    folder, rows, base = tmp_path / "run", tmp_path / "rows", tmp_path / "base"
    shutil.copytree(data, rows)
    shutil.copytree(checkpoint(), base)
    code, _, told = metakd("run", "--data", rows, "--base", base, "--output", folder, *QUICK)
    assert code == 0, told
    code, out, told = metakd("reproduce", folder)
    assert code == 0, told
    assert "run-reproduced is the same as" in out
    for name in ("meta_teacher", "students/books", "fine_tuned_shared/kitchen", "results.json", "predictions.jsonl"):
        assert name in out

    code, _, told = metakd("reproduce", folder)
    assert code == 2
    assert "a whole run is there already" in " ".join(told.split())

    manifest = read_manifest(folder)
    assert manifest is not None
    assert {"steps", "run", "environment", "files", "seconds"} <= set(manifest)
    assert manifest["run"]["settings"]["seed"] == 0
    assert set(manifest["run"]["models"]["base"]) >= {"model.safetensors", "config.json", "tokenizer.json"}
    assert set(manifest["files"]) == {"results.json", "results.md", "predictions.jsonl", "corpus.json"}

    with monkeypatch.context() as patch:
        patch.setattr(LengthBatches, "set_epoch", lambda self, epoch: setattr(self, "epoch", epoch + 7))
        code, _, told = metakd("reproduce", folder, "--output", tmp_path / "other")
    assert code == 1
    assert "is not the same as" in told
    assert "meta_teacher: domain_head.safetensors, model.safetensors, log" in told
    assert "instance_weights:" not in told
    assert "Traceback" not in told

    for place, name in ((rows / "train.jsonl", "data"), (base / "config.json", "base")):
        place.write_text(place.read_text(encoding="utf-8").replace("very", "quite") + "\n", encoding="utf-8")
        code, _, told = metakd("reproduce", folder, "--output", tmp_path / "third")
        assert code == 2
        assert f"{name} {rows if name == 'data' else base}: not the" in told
    assert not (tmp_path / "third").exists()

    (folder / "students" / "books" / "model.safetensors").write_bytes(b"torn")
    code, _, told = metakd("reproduce", folder, "--output", tmp_path / "third")
    assert code == 2
    assert "not as it was when it was finished: students/books" in " ".join(told.split())
    (folder / "manifest.json").unlink()
    code, _, told = metakd("reproduce", folder)
    assert code == 2
    assert "no finished run" in told


def test_values_are_compared_but_for_times(tmp_path: Path) -> None:
    one = {"a": {"accuracy": 0.5, "latency_ms": {"median": 1.0}}, "seconds": 3, "files": {"x": "1"}, "b": [1, 2]}
    two = {"a": {"accuracy": 0.25, "latency_ms": {"median": 2.0}}, "seconds": 4, "files": {"x": "2"}, "b": [1, 3]}
    assert reproduce._unlike(one, two) == ["a.accuracy", "b"]
    assert reproduce._unlike(one, one) == []
    assert reproduce._unlike({"a": 1}, {}) == ["a"]


def test_a_manifest_knows_when_its_files_are_no_more_what_they_were(
    finished_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "books"
    shutil.copytree(finished_run / "students" / "books", folder)
    manifest = read_whole(folder)
    assert manifest is not None
    assert not changed_files(folder, manifest)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").unlink()
    assert sorted(changed_files(folder, manifest)) == ["config.json", "tokenizer.json"]
    assert read_whole(folder) is None
    assert "counts as unfinished" in caplog.text
    (folder / "manifest.json").write_text(json.dumps({"step": "distill"}))
    assert read_whole(folder) is None


def test_what_a_result_depends_on_beside_data_and_settings_is_written_down() -> None:
    found = environment()
    assert {"python", "versions", "system", "processor", "cores", "memory_gb", "threads", "gpu", "commit"} <= set(found)
    assert {"metakd", "torch", "transformers", "numpy"} <= set(found["versions"])
    assert found["threads"] >= 1


def test_a_student_made_once_more_has_the_bits_of_the_first(
    metakd: Command, checkpoint: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
    """Its texts alone would be batched otherwise, and for its one pass none of the teacher's layers would be kept."""
    folder, rows = tmp_path / "run", tmp_path / "rows"
    for split in ("train", "dev"):
        own = [json.loads(line) for line in (data / f"{split}.jsonl").read_text().splitlines()]
        longer = [row | {"text": f"{row['text']}{' page' * (n % 9)}"} for n, row in enumerate(own)]
        write_rows(rows / f"{split}.jsonl", longer)
    joint = ("--stages", "joint", "--match-epochs", "0", "--precision", "bfloat16", "--no-baseline")
    run = ("run", "--data", rows, "--base", checkpoint(), "--output", folder, *QUICK, *joint)
    code, _, told = metakd(*run)
    assert code == 0, told
    student = folder / "students" / "books"
    first = (student / "model.safetensors").read_bytes()
    shutil.rmtree(student)
    code, _, told = metakd(*run, "--resume")
    assert code == 0, told
    assert (student / "model.safetensors").read_bytes() == first
