"""Students: where they start, for how long they learn, what is saved of them, and what is left of the teacher."""

import math
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import pipeline as hugging_face_pipeline

import metakd
from conftest import Checkpoint, NewRun, open_run, read_json, read_rows, reopen, taught, toy_examples, write_rows
from metakd import InputError
from metakd.data.schema import Example
from metakd.inference.torch_backend import TorchModel
from metakd.models.encoder import forward
from metakd.models.loading import load_encoder
from metakd.pipeline.distill import (
    _features,
    _pseudo_labelled,
    _set_up,
    _without,
    distill,
    distill_all,
)
from metakd.pipeline.run_all import clear, run_all
from metakd.pipeline.teach import load_teacher
from metakd.pipeline.teacher_outputs import largest_counts, open_teacher_cache, unsure_texts
from metakd.runs.student_jobs import StudentJob, student_jobs
from metakd.training.distillation_module import Distillation
from metakd.training.teacher_cache import TeacherCache
from metakd.utils.locks import waiting_lock

HOLD = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_process_that_waits_for_another_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "steps" / "books.lock"
    with waiting_lock(path, "trains books"):
        assert not caplog.text
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLD, path], **pipes) as other:
        assert other.stdout.readline() == "held\n"

        def let_go_once_waited_for() -> None:
            for _ in range(6_000):
                if "another process trains books" in caplog.text:
                    break
                time.sleep(0.01)
            other.communicate("\n")

        release = Thread(target=let_go_once_waited_for)
        release.start()
        with waiting_lock(path, "trains books"):
            release.join()
            assert other.returncode == 0
    assert caplog.text.count("another process trains books") == 1


@pytest.mark.parametrize(
    ("settings", "source", "layers"),
    [
        ({}, "teacher", [2, 4]),
        ({"start_layers": "1,2"}, "teacher", [1, 2]),
        ({"layer_map": "1,4"}, "teacher", [1, 4]),
        ({"student_init": "base"}, "base", [2, 4]),
    ],
)
def test_a_student_starts_from_the_layers_that_the_settings_name(
    finished_run: Path, settings: dict[str, str], source: str, layers: list[int]
) -> None:
    run = reopen(finished_run, student="layers=2", dropout=0.25, attention_dropout=0.5, **settings)
    (job,) = student_jobs(run, "meta_kd", [None])
    student = _set_up(run, job, None).student
    encoder = load_teacher(run).encoder if source == "teacher" else load_encoder(Path(run.settings.base), ["a", "b"])
    for place, layer in enumerate(layers):
        ours, theirs = student.base_model.encoder.layer[place], encoder.base_model.encoder.layer[layer - 1]
        assert torch.equal(ours.output.dense.weight, theirs.output.dense.weight)
        assert ours.output.dropout.p == 0.25
        assert ours.attention.self.dropout.p == 0.5


@pytest.mark.slow
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


def test_a_domains_student_begins_as_the_shared_one(toy_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = taught(toy_run(student="layers=2", baseline=False))
    distill(run, "kitchen")
    shared = load_file(run.folders.student("meta_kd", None) / "model.safetensors")
    begun: dict[str, torch.Tensor] = {}

    def fit(learner: Distillation, *_: object) -> list[dict[str, float]]:
        begun.update({name: value.clone() for name, value in learner.student.state_dict().items()})
        return []

    monkeypatch.setattr("metakd.pipeline.distill.fit", fit)
    distill(run, "books")
    assert shared
    assert all(torch.equal(begun[name], shared[name]) for name in shared)


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
    (ours,) = metakd.Classifier.from_pretrained(folder).predict(["a lovely page"])
    assert (ours.label, ours.probability) == (prediction["label"], pytest.approx(prediction["score"], abs=1e-5))
    names = set(load_file(folder / "model.safetensors"))
    assert not [name for name in names if "transferable" in name or "extras" in name or "layer.2" in name]
    config = read_json(folder / "config.json")
    assert config["num_hidden_layers"] == 2
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    assert not [name for name in config if "attn" in name or "attention_implementation" in name]


@pytest.mark.slow
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


@pytest.mark.slow
def test_students_learn_from_text_without_labels(toy_run: NewRun, tmp_path: Path) -> None:
    """Its class is the teacher's, for its windows too; t is the cosine with its prototypes, over the mean t."""
    rows = [{"text": f"{e.text} page", "domain": e.domain} for e in toy_examples(40, 9, "n")]
    more = write_rows(tmp_path / "more.jsonl", rows)
    run = taught(toy_run(unlabelled=str(more), windows=1, max_length=6, terms="prediction", stages="joint"))
    distill_all(run, run.data.domains, run.methods)
    weights = read_rows(run.folders.unlabelled_weights / "weights.jsonl")
    texts = run.data.unlabelled
    assert [row["id"] for row in weights] == [e.id for e in texts]
    probabilities = TorchModel.load(run.folders.teacher).answers(texts).probabilities
    assert [row["label"] for row in weights] == [run.data.labels[i] for i in probabilities.argmax(-1)]
    assert [row["confidence"] for row in weights] == pytest.approx(probabilities.max(-1).tolist(), abs=1e-5)
    vectors = load_file(run.folders.weights / "prototypes.safetensors")["vectors"]
    embedded = embeddings_of(run, texts)
    for row, e in zip(weights, embedded, strict=True):
        label, home = run.data.label_ids[row["label"]], run.data.domain_ids[row["domain"]]
        cosines = torch.cosine_similarity(vectors[:, label], e, dim=-1)
        assert row["score"] == pytest.approx(0.5 * cosines[home].item() + 0.5 * cosines[1 - home].item(), abs=1e-5)
    labelled = read_rows(run.folders.weights / "weights.jsonl")
    mean = sum(max(row["score"], 0) for row in labelled) / len(labelled)
    assert [row["weight"] for row in weights] == pytest.approx([max(row["score"], 0) / mean for row in weights])
    (job,) = student_jobs(run, "meta_kd", ["books"])
    windows = [e for e in job.examples if e.id.startswith("unlabelled/") and e.id.endswith("#1")]
    assert windows
    assert run.features.instance_weights(windows) == [
        {row["id"]: row["weight"] for row in weights}[e.id.removesuffix("#1")] for e in windows
    ]


def embeddings_of(run: Any, texts: list[Example]) -> torch.Tensor:
    """E(x) by the base, of each text alone."""
    encoder, collator = load_encoder(Path(run.settings.base), run.data.labels).eval(), run.features.collator
    with torch.no_grad():
        return torch.cat([forward(encoder, collator([row])).pooled for row in run.features.encode(texts)])


def test_a_window_of_an_unlabelled_text_has_the_class_of_the_text(toy_run: NewRun, tmp_path: Path) -> None:
    rows = [{"text": e.text + " good fine bad poor", "domain": e.domain} for e in toy_examples(20, 9, "n")]
    more = write_rows(tmp_path / "more.jsonl", rows)
    run = taught(toy_run(unlabelled=str(more), windows=1, max_length=6, terms="prediction", stages="joint"))
    cache = open_teacher_cache(run, ["meta_kd"])
    (job,) = student_jobs(run, "meta_kd", [None])
    labels = dict(zip((e.id for e in job.examples), features_of(run, job, cache), strict=True))
    assert {*labels.values()} <= {0, 1}
    assert all(labels[name] == labels[run.features.texts_of_windows.get(name, name)] for name in labels)
    assert len([name for name in labels if name.startswith("unlabelled/") and "#" in name]) == 20


def features_of(run: Any, job: StudentJob, cache: TeacherCache) -> list[int]:
    return _features(run, job, run.features.student_tokenizer, cache, {}).column("labels").tolist()


def test_unsure_texts_and_those_of_a_crowded_class_are_left_out(toy_run: NewRun, tmp_path: Path) -> None:
    """Of each domain, no class has more than 60 % of what is left, and the surest stay."""
    rows = [{"text": f"{e.text} page", "domain": e.domain} for e in toy_examples(40, 9, "n")]
    more = write_rows(tmp_path / "more.jsonl", rows)
    how = {"unlabelled": str(more), "terms": "prediction", "stages": "joint", "windows": 1, "max_length": 6}
    run = taught(toy_run(**how, teacher_epochs=8, teacher_learning_rate=5e-3))
    cache = open_teacher_cache(run, ["meta_kd"])
    said = read_rows(run.folders.unlabelled_weights / "weights.jsonl")
    least = sorted(row["confidence"] for row in said)[len(said) // 3]
    run = replace(run, settings=run.settings.model_copy(update={"min_confidence": least, "max_share": 0.6}))
    unsure = unsure_texts(run, cache)
    assert len(said) // 3 <= len(unsure) < len(said)
    for domain in run.data.domains:
        of_domain = [row for row in said if row["domain"] == domain]
        kept = [row for row in of_domain if row["id"] not in unsure]
        sure = [row for row in of_domain if row["confidence"] >= least]
        assert all(row in sure for row in kept)
        counts = Counter(row["label"] for row in kept)
        assert max(counts.values(), default=0) <= 0.6 * len(kept)
        for label in counts:
            confidences = [[r["confidence"] for r in part if r["label"] == label] for part in (kept, sure)]
            assert sorted(confidences[0]) == sorted(confidences[1])[-len(confidences[0]) :]
    (job,) = student_jobs(run, "meta_kd", [None])
    left = {e.id for e in _without(run, job, unsure).examples}
    assert {e.id for e in job.examples} - left >= unsure
    assert not any(run.features.texts_of_windows.get(name, name) in unsure for name in left)


def test_a_share_is_kept_by_as_many_texts_as_can_be() -> None:
    """10, 3 and 1: at 60 % the first may have 6 of 10. 9 and 1 at 50 %: one each. At 10 %: equal counts."""
    assert largest_counts({0: 10, 1: 3, 2: 1}, 0.6, 3) == {0: 6, 1: 3, 2: 1}
    assert largest_counts({0: 9, 1: 1}, 0.5, 2) == {0: 1, 1: 1}
    assert largest_counts({0: 9, 1: 4}, 0.1, 2) == {0: 4, 1: 4}
    assert largest_counts({0: 9}, 0.5, 2) == largest_counts({0: 9}, 0.2, 5) == {0: 0}
    assert largest_counts({0: 50, 1: 50}, 0.4, 3) == {0: 50, 1: 50}
    assert largest_counts(dict.fromkeys(range(10), 1), 0.05, 77) == dict.fromkeys(range(10), 1)
    assert largest_counts({0: 9}, 0.5, 1) == {0: 9}
    assert largest_counts({0: 2, 1: 2}, 1.0, 2) == {0: 2, 1: 2}
    assert largest_counts({}, 0.5, 2) == {}


def test_a_self_trained_student_learns_the_classes_that_the_baseline_gives(toy_run: NewRun, tmp_path: Path) -> None:
    """Of the shared start on labels alone, which the run's own baseline has too."""
    rows = [{"text": f"{e.text} page", "domain": e.domain} for e in toy_examples(20, 9, "n")]
    more = write_rows(tmp_path / "more.jsonl", rows)
    run = toy_run(unlabelled=str(more), method="self_trained", shared_epochs=2)
    examples = _pseudo_labelled(run)
    first = run.folders.student("fine_tuned_shared", None)
    classes = TorchModel.load(first).answers(run.data.unlabelled).probabilities.argmax(-1)
    assert [e.label for e in examples] == [run.data.labels[place] for place in classes]
    assert [e.id for e in examples] == [e.id for e in run.data.unlabelled]
    learnt: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metakd.pipeline.distill._distill", lambda _, job, cache: learnt.append(len(job.examples)))
        distill_all(run, ["books"], ["self_trained"])
    assert learnt == [256 + 20, 128 + 10]  # the shared start, then books
    with pytest.raises(InputError, match="set shared_epochs to 1 or more"):
        distill_all(toy_run(unlabelled=str(more), method="self_trained", shared_epochs=0), ["books"], ["self_trained"])


def test_only_students_of_a_teacher_depend_on_text_without_labels(toy_run: NewRun, tmp_path: Path) -> None:
    rows = [{"text": e.text + " page", "domain": e.domain} for e in toy_examples(600, 9, "n")]
    more = write_rows(tmp_path / "more.jsonl", rows)
    run, without = toy_run(unlabelled=str(more)), toy_run()
    assert without.fingerprints.teach == run.fingerprints.teach
    for domain in (None, "books"):
        ours, theirs = (r.fingerprints.distill("meta_kd", domain) for r in (run, without))
        assert ours != theirs
        ours, theirs = (r.fingerprints.distill("fine_tuned_shared", domain) for r in (run, without))
        assert ours == theirs
    assert run.stages["fine_tuned_shared"] == without.stages["fine_tuned_shared"]
    (alone,) = student_jobs(run, "fine_tuned_shared", ["books"])
    assert not any(e.id.startswith("unlabelled/") for e in alone.examples)
    run.begin()
    assert read_json(run.folder / "run.json")["settings"]["unlabelled"] == str(more)
    run.folders.unlabelled_weights.mkdir()
    clear(run)
    assert not run.folders.unlabelled_weights.exists()
