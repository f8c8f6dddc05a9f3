"""Students: where they start, for how long they learn, what is saved of them, and what is left of the teacher."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import pipeline as hugging_face_pipeline

import metakd
from conftest import Checkpoint, NewRun, open_run, read_json, read_rows, reopen, taught, toy_examples, write_rows
from metakd.pipeline.distill import distill, distill_all, student_jobs
from metakd.pipeline.run_all import run_all
from metakd.training.distillation_module import Distillation
from metakd.utils.locks import waiting_lock

HOLD = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(1)
"""


def test_a_process_that_waits_for_another_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "steps" / "books.lock"
    with waiting_lock(path, "trains books"):
        assert not caplog.text
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with waiting_lock(path, "trains books"):
            assert other.stdout.read() == ""  # it has gone
    assert caplog.text.count("another process trains books") == 1


def test_a_run_stopped_at_its_baseline_drops_the_teacher_cache(toy_run: NewRun) -> None:
    """Students are done and the cache is kept; a resumed run that may not keep it has only baselines to train."""
    kept = toy_run(match_epochs=2, keep_cache=True, baseline=False)
    run_all(kept)
    assert (kept.folders.teacher_cache / "shard-00000.safetensors").exists()
    resumed = toy_run(match_epochs=2)
    distill_all(resumed, resumed.data.domains, resumed.methods)
    assert [path.name for path in kept.folders.teacher_cache.iterdir()] == ["manifest.json"]


def test_the_baseline_learns_for_as_long_as_a_student(finished_run: Path) -> None:
    """As many epochs on all domains' text, and then on its domain's."""
    settings = read_json(finished_run / "run.json")["settings"]
    of_domain = settings["predict_epochs"] + settings["match_epochs"]
    shared = ("fine_tuned_shared_shared_student", "share", settings["shared_epochs"])
    for folder, stage, epochs in (shared, ("fine_tuned_shared/books", "fine_tune", of_domain)):
        log = read_json(finished_run / folder / "manifest.json")["log"]
        assert math.ceil(log[stage][-1]["epoch"]) == epochs


def test_students_of_all_domains_start_from_the_shared_one(finished_run: Path) -> None:
    folders = (finished_run / name for name in ("shared_student", "students/books", "students/kitchen"))
    shared, books, kitchen = (load_file(folder / "model.safetensors") for folder in folders)
    assert shared.keys() == books.keys() == kitchen.keys()
    name = "classifier.weight"
    assert not torch.equal(books[name], kitchen[name])
    assert (books[name] - shared[name]).norm() < shared[name].norm()


def test_projections_go_on(checkpoint: Checkpoint, toy_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shared start's projections and h are those that each domain's stage begins with."""
    narrow = checkpoint(hidden_size=8, intermediate_size=16, num_hidden_layers=2)
    run = taught(toy_run(student=str(narrow), stages="joint", baseline=False))
    distill(run, "kitchen")
    shared = load_file(run.folders.student("meta_kd", None) / "extras.safetensors")
    assert {name.split(".")[0] for name in shared} == {"layers", "feature", "transferable"}
    first: dict[str, torch.Tensor] = {}

    def fit(learner: Distillation, *_: object) -> list[dict[str, float]]:
        first.update({name: value.clone() for name, value in learner.extras.state_dict().items()})
        return []

    monkeypatch.setattr("metakd.pipeline.distill.fit", fit)
    folder = distill(run, "books")
    assert all(torch.equal(first[name], shared[name]) for name in shared)
    assert not (folder / "extras.safetensors").exists()


def test_a_student_is_an_ordinary_hugging_face_model_without_parts_of_its_training(finished_run: Path) -> None:
    folder = finished_run / "students" / "books"
    (prediction,) = hugging_face_pipeline("text-classification", str(folder))("a lovely page")
    assert prediction["label"] in ("negative", "positive")
    (ours,) = metakd.Classifier.load(folder).predict(["a lovely page"])
    assert (ours.label, ours.probability) == (prediction["label"], pytest.approx(prediction["score"], abs=1e-5))
    names = set(load_file(folder / "model.safetensors"))
    assert not [name for name in names if "transferable" in name or "extras" in name or "layer.2" in name]
    config = read_json(folder / "config.json")
    assert config["num_hidden_layers"] == 2
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    assert not [name for name in config if "attn" in name or "attention_implementation" in name]


def test_bfloat16_gives_about_the_same_students_saved_in_float32(base: Path, toy_data: Path, tmp_path: Path) -> None:
    students = {}
    for precision in ("float32", "bfloat16"):
        run = open_run(tmp_path / precision, toy_data, base, precision=precision, match_epochs=2)
        folder = distill(taught(run), "books")
        assert read_json(folder / "manifest.json")["precision"] == precision
        students[precision] = load_file(folder / "model.safetensors")
    for name, whole in students["float32"].items():
        half = students["bfloat16"][name]
        assert half.dtype == torch.float32
        assert 0 < (half - whole).norm() < 0.05 * whole.norm().clamp(min=1), name


def test_students_learn_from_text_without_labels(toy_run: NewRun, tmp_path: Path) -> None:
    """The teacher says of each text once what class it is, how sure it is, and so how much the text transfers."""
    rows = [{"text": e.text, "domain": e.domain} for e in toy_examples(40, 9, "n")]
    more = write_rows(tmp_path / "more.jsonl", rows)
    run = taught(toy_run(unlabelled=str(more), windows=1, max_length=6, terms="prediction", stages="joint"))
    distill_all(run, run.data.domains, run.methods)
    answers = read_rows(run.folders.unlabelled_weights / "weights.jsonl")
    assert [row["id"] for row in answers] == [e.id for e in run.data.unlabelled]
    assert {row["label"] for row in answers} <= {*run.data.labels}
    assert all(0.5 <= row["confidence"] <= 1 for row in answers)
    assert run.features.instance_weights(run.data.unlabelled) == [row["weight"] for row in answers]
    (job,) = student_jobs(run, "meta_kd", ["books"])
    ids = {e.id for e in job.examples}
    assert {e.id for e in run.data.unlabelled if e.domain == "books"} < ids
    assert any(name.startswith("unlabelled/") and name.endswith("#1") for name in ids)
    (alone,) = student_jobs(run, "fine_tuned_shared", ["books"])
    assert not any(e.id.startswith("unlabelled/") for e in alone.examples)
    without = reopen(run.folder, unlabelled=None)
    assert without.fingerprints.teach == run.fingerprints.teach
    assert without.fingerprints.distill("meta_kd", "books") != run.fingerprints.distill("meta_kd", "books")
    assert without.fingerprints.distill("fine_tuned_shared", None) == run.fingerprints.distill(
        "fine_tuned_shared", None
    )
    assert read_json(run.folder / "run.json")["settings"]["unlabelled"] == str(more)
