"""The whole story on tiny models: what each step leaves, and that nothing is read that should not be."""

import errno
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import pipeline as hugging_face_pipeline

import metakd
from conftest import FAST, as_row, open_run, toy_examples, write_rows
from metakd import CheckError, InputError, Run, Settings
from metakd.data.examples import read_examples
from metakd.models.meta_teacher import MetaTeacher
from metakd.pipeline import checks, run_all
from metakd.pipeline.distill import distill, distill_all
from metakd.pipeline.evaluate import evaluate, evaluate_file
from metakd.pipeline.teach import teach
from metakd.pipeline.weigh import weigh
from metakd.training.distillation_module import Distillation
from metakd.utils.artifacts import is_done, read_manifest, read_run, seal, write_json


def test_every_step_leaves_a_manifest_and_nothing_half_made(finished_run: Path) -> None:
    steps = [
        "instance_weights",
        "meta_teacher",
        "shared_student",
        "students/books",
        "students/kitchen",
        "fine_tuned_shared/books",
    ]
    for step in steps:
        manifest = read_manifest(finished_run / step)
        assert manifest is not None, step
        assert {"fingerprint", "seconds", "environment"} <= set(manifest)
    assert not [p for p in finished_run.rglob("*") if p.name.startswith(".") or p.name.startswith("checkpoint-")]
    assert [path.name for path in (finished_run / "teacher_cache").iterdir()] == ["manifest.json"]
    assert "teacher_cache" in json.loads((finished_run / "results.json").read_text())["seconds"]


def test_a_folder_goes_on_in_the_precision_that_it_was_begun_in(
    checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `auto` meant on the machine that began it is written down, and read again on another machine."""
    monkeypatch.setattr("metakd.runs.run.native_precision", lambda: "bfloat16")
    begun = open_run(tmp_path / "run", toy_data, checkpoint(), precision="auto")
    monkeypatch.setattr("metakd.runs.run.native_precision", lambda: "float32")
    again = Settings.build(json.loads((tmp_path / "run" / "run.json").read_text())["settings"])
    assert Run.assemble(tmp_path / "run", again, toy_data).teach_fingerprint == begun.teach_fingerprint
    assert open_run(tmp_path / "other", toy_data, checkpoint(), precision="auto").precision == "float32"


def test_vectors_that_the_disk_has_no_room_for_are_refused_before_they_are_made(
    checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(tmp_path / "run", toy_data, checkpoint())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("metakd.pipeline.weigh.reserve", full)
    with pytest.raises(OSError, match="No space left"):
        weigh(run)
    assert {path.name for path in run.folder.iterdir()} == {"run.json", "run.lock"}


def test_a_run_that_was_stopped_while_the_rival_learnt_leaves_no_memory_behind(
    checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path
) -> None:
    """Students are done and the cache is kept; a resumed run that may not keep it has only rivals to train."""
    kept = open_run(tmp_path / "run", toy_data, checkpoint(), match_epochs=2, keep_cache=True, baseline=False)
    run_all.run_all(kept)
    assert (kept.cache_folder / "shard-00000.safetensors").exists()
    resumed = open_run(tmp_path / "run", toy_data, checkpoint(), match_epochs=2)
    distill_all(resumed, resumed.data.domains, resumed.methods)
    assert [path.name for path in kept.cache_folder.iterdir()] == ["manifest.json"]


def test_results_have_every_model_domain_and_figure(finished_run: Path) -> None:
    results = json.loads((finished_run / "results.json").read_text())
    models = ["meta_teacher", "student", "fine_tuned_shared", "tfidf"]
    assert results["split"] == "test"
    assert list(results["average"]) == models
    assert list(results["domains"]) == ["books", "kitchen"]
    for domain in ("books", "kitchen"):
        assert list(results["domains"][domain]) == models
        for found in results["domains"][domain].values():
            assert 0 <= found["accuracy_interval"][0] <= found["accuracy"] <= found["accuracy_interval"][1] <= 1
            assert found["parameters"] > 0
            assert found["bytes"] > 0
            assert 0 < found["latency_ms"]["median"] <= found["latency_ms"]["p95"]
    mean = sum(results["domains"][d]["student"]["accuracy"] for d in ("books", "kitchen")) / 2
    assert results["average"]["student"]["accuracy"] == pytest.approx(mean)
    assert results["average"]["student"]["parameters"] < results["average"]["meta_teacher"]["parameters"]
    assert "| meta_teacher |" in (finished_run / "results.md").read_text()


def test_the_teacher_notes_how_well_its_domain_can_be_read(finished_run: Path) -> None:
    """The false domain loss hands h the domain's embedding, so h tells the domain without fail."""
    manifest = read_manifest(finished_run / "meta_teacher")
    assert manifest is not None
    probe = manifest["domain_probe"]
    assert probe["chance"] == 0.5
    assert 0 <= probe["pooled"] <= 1
    assert probe["representation"] > 0.9


def test_the_rival_learns_for_as_long_as_a_student_has_behind_it(finished_run: Path) -> None:
    """As many passes over all domains' text, and then over its own."""
    settings = json.loads((finished_run / "run.json").read_text())["settings"]
    own = settings["predict_epochs"] + settings["match_epochs"]
    steps = [("fine_tuned_shared_shared_student", "share", settings["shared_epochs"])]
    steps += [("fine_tuned_shared/books", "fine_tune", own)]
    for folder, stage, epochs in steps:
        manifest = read_manifest(finished_run / folder)
        assert manifest is not None
        assert math.ceil(manifest["log"][stage][-1]["epoch"]) == epochs


def test_learning_shows(finished_run: Path) -> None:
    """One word tells the class: teacher and students have to be far above chance, or something does not learn."""
    results = json.loads((finished_run / "results.json").read_text())
    assert results["average"]["meta_teacher"]["accuracy"] > 0.9
    assert results["average"]["student"]["accuracy"] > 0.9


def test_every_domains_student_starts_from_the_shared_one_and_goes_its_own_way(finished_run: Path) -> None:
    shared, books, kitchen = (
        load_file(finished_run / name / "model.safetensors")
        for name in ("shared_student", "students/books", "students/kitchen")
    )
    assert shared.keys() == books.keys() == kitchen.keys()
    name = "classifier.weight"
    assert not torch.equal(books[name], kitchen[name])
    assert (books[name] - shared[name]).norm() < shared[name].norm()


def test_a_student_is_an_ordinary_hugging_face_model(finished_run: Path) -> None:
    classify = hugging_face_pipeline("text-classification", str(finished_run / "students" / "books"))
    found = classify("a lovely page")[0]
    assert found["label"] in ("negative", "positive")
    ours = metakd.Classifier.load(finished_run / "students" / "books").predict(["a lovely page"])[0]
    assert (ours.label, ours.probability) == (found["label"], pytest.approx(found["score"], abs=1e-5))


def test_students_keep_nothing_of_their_training(finished_run: Path) -> None:
    folder = finished_run / "students" / "books"
    names = set(load_file(folder / "model.safetensors"))
    assert not [name for name in names if "transferable" in name or "extras" in name or "layer.2" in name]
    config = json.loads((folder / "config.json").read_text())
    assert config["num_hidden_layers"] == 2
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    assert not [name for name in config if "attn" in name or "attention_implementation" in name]


def test_manifests_say_how_weights_are_distributed(finished_run: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Five quantiles in order, and a share between nothing and all; weights that are all alike are remarked on."""
    weighed = json.loads((finished_run / "instance_weights" / "manifest.json").read_text(encoding="utf-8"))["weights"]
    taught = json.loads((finished_run / "students" / "books" / "manifest.json").read_text(encoding="utf-8"))[
        "expertise"
    ]
    for found in (weighed, taught):
        assert len(found["quantiles"]) == 5
        assert found["quantiles"] == sorted(found["quantiles"])
        assert 0 < found["effective_share"] <= 1
    assert not caplog.text
    assert checks.spread(torch.ones(8), "weights of a test")["effective_share"] == 1
    assert "weights of a test hardly differ" in caplog.text


def test_a_students_score_reads_the_students_weights(finished_run: Path, tmp_path: Path, toy_data: Path) -> None:
    """Zeroed, the student of books says one class for everything, and only its own score falls to a half."""
    folder = tmp_path / "copy"
    shutil.copytree(finished_run, folder)
    weights = folder / "students" / "books" / "model.safetensors"
    save_file({k: torch.zeros_like(v) for k, v in load_file(weights).items()}, weights, metadata={"format": "pt"})
    manifest = read_manifest(weights.parent)
    assert manifest is not None
    seal(weights.parent, {name: value for name, value in manifest.items() if name != "files"})
    found = evaluate_file(folder, toy_data / "test.jsonl", tmp_path / "scores.json")
    before = json.loads((finished_run / "results.json").read_text())
    assert found["domains"]["books"]["student"]["accuracy"] == 0.5
    assert found["domains"]["books"]["student"]["accuracy"] != before["domains"]["books"]["student"]["accuracy"]
    for domain, model in (("kitchen", "student"), ("books", "meta_teacher"), ("books", "fine_tuned_shared")):
        assert found["domains"][domain][model]["accuracy"] == before["domains"][domain][model]["accuracy"]


def test_a_domains_scores_are_of_that_domain_alone(finished_run: Path, toy_data: Path) -> None:
    """The dev check of a student counts the domain's dev rows, and the table the domain's test rows."""
    for split, found in (
        ("dev", read_manifest(finished_run / "students" / "books")["check"]["examples"]),  # type: ignore[index]
        ("test", json.loads((finished_run / "results.json").read_text())["domains"]["books"]["student"]["examples"]),
    ):
        rows = read_examples(toy_data / f"{split}.jsonl")
        assert found == sum(e.domain == "books" for e in rows) < len(rows)


def test_finished_steps_are_left_alone_and_other_settings_refused(finished_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished_run, folder)
    described = read_run(folder)
    data, settings = Path(described["data"]), described["settings"]
    run = Run.assemble(folder, Settings.build(settings), data).begin()
    before = (folder / "meta_teacher" / "manifest.json").stat().st_mtime_ns
    teach(run)
    assert (folder / "meta_teacher" / "manifest.json").stat().st_mtime_ns == before
    other = Run.assemble(folder, Settings.build(settings | {"gamma1": 0.1}), data)
    assert is_done(folder / "instance_weights", other.weigh_fingerprint)
    with pytest.raises(InputError, match="made with other settings"):
        teach(other)


def test_steps_out_of_order_name_the_one_that_is_missing(
    checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path
) -> None:
    run = open_run(tmp_path / "run", toy_data, checkpoint())
    with pytest.raises(InputError, match="metakd weigh"):
        teach(run)
    with pytest.raises(InputError, match="metakd teach"):
        distill(run, "books")
    assert {p.name for p in run.folder.iterdir()} <= {"run.json", "run.lock", "students", "meta_teacher"}
    assert not list(run.folder.rglob("manifest.json"))


def test_a_teacher_near_chance_is_refused(checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", toy_data, checkpoint(), allow_weak_teacher=False, teacher_learning_rate=1e-9)
    weigh(run)
    teach(run)
    with pytest.raises(InputError, match=r"near chance.*--allow-weak-teacher"):
        distill(run, "books")


def test_a_reload_that_differs_is_an_error(
    checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(tmp_path / "run", toy_data, checkpoint())
    weigh(run)

    def forgetful(self: MetaTeacher, folder: Path) -> None:
        self.encoder.save_pretrained(folder)
        weights = load_file(folder / "model.safetensors")
        weights["classifier.weight"][0] += 1.0
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(MetaTeacher, "save", forgetful)
    with pytest.raises(CheckError, match="reloaded, its probabilities differ"):
        teach(run)
    assert not run.teacher_folder.exists()
    assert not list(run.folder.glob(".*"))


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "electra", "mpnet"])
def test_every_proven_architecture_runs_through(
    checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path, kind: str
) -> None:
    results = run_all.run_all(open_run(tmp_path / "run", toy_data, checkpoint(kind), baseline=False))
    assert list(results["average"]) == ["meta_teacher", "student", "tfidf"]


@pytest.mark.parametrize("loss", ["permuted", "uniform", "reversal", "none"])
def test_every_domain_loss_runs_through(
    checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path, loss: str
) -> None:
    run = open_run(tmp_path / "run", toy_data, checkpoint(), domain_loss=loss, stages="joint", shared_epochs=0)
    weigh(run)
    teach(run)
    assert (distill(run, "books") / "manifest.json").is_file()


def test_a_checkpoint_of_another_width_and_vocabulary_can_be_the_student(
    checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path
) -> None:
    from conftest import WORDS

    student = checkpoint("distilbert", words=[*WORDS[:5], *reversed(WORDS[5:])], dim=8, hidden_dim=16, n_layers=1)
    run = open_run(tmp_path / "run", toy_data, checkpoint(), student=str(student), baseline=False)
    results = run_all.run_all(run)
    assert results["average"]["student"]["parameters"] < results["average"]["meta_teacher"]["parameters"]


def test_one_domain_pairs_no_test_split_and_odd_names(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """K = 1, sentence pairs, three classes of which dev lacks one, a domain called '../a b': scored on dev."""
    rows = [
        {"text": f"good page {i}", "text_pair": "bad lid", "label": ["x", "y", "z"][i % 3], "domain": "../a b"}
        for i in range(24)
    ]
    data = write_rows(tmp_path / "data" / "train.jsonl", rows).parent
    write_rows(data / "dev.jsonl", [row for row in rows if row["label"] != "z"])
    run = open_run(tmp_path / "run", data, checkpoint())
    results = run_all.run_all(run)
    assert results["split"] == "dev"
    assert [p.name for p in (tmp_path / "run" / "students").iterdir()] == ["%2E%2E%2Fa b"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "run"]


def test_a_model_that_is_not_what_its_manifest_says_is_not_scored_but_made_anew(
    finished_run: Path, tmp_path: Path, toy_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished_run, folder)
    weights = folder / "students" / "books" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    described = read_run(folder)
    run = Run.assemble(folder, Settings.build(described["settings"]), Path(described["data"]))
    with pytest.raises(InputError, match=r"student is missing for books; `metakd run --resume"):
        evaluate(run)
    assert "books counts as unfinished: not what its manifest says: model.safetensors" in caplog.text
    assert not is_done(weights.parent, run.distill_fingerprint("meta_kd", "books"))
    assert not (folder / "manifest.json").exists()


def test_a_run_without_all_its_students_is_not_scored(finished_run: Path, tmp_path: Path, toy_data: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished_run, folder)
    shutil.rmtree(folder / "students" / "kitchen")
    described = read_run(folder)
    run = Run.assemble(folder, Settings.build(described["settings"]), Path(described["data"]))
    with pytest.raises(InputError, match=r"student is missing for kitchen; `metakd run --resume"):
        evaluate(run)
    shutil.rmtree(folder / "meta_teacher")
    with pytest.raises(InputError, match="no finished meta-teacher"):
        evaluate_file(folder, toy_data / "test.jsonl", tmp_path / "s.json")


def test_what_cannot_be_scored_is_refused_before_anything_is_trained(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    rows = [as_row(e) for e in toy_examples(32, 0, "train")]
    data = write_rows(tmp_path / "data" / "train.jsonl", rows).parent
    with pytest.raises(InputError, match="neither test nor dev"):
        run_all.run_all(open_run(tmp_path / "run", data, checkpoint()))
    write_rows(data / "dev.jsonl", [as_row(e) for e in toy_examples(8, 1, "dev") if e.domain == "books"])
    with pytest.raises(InputError, match="dev has no rows of kitchen"):
        run_all.run_all(open_run(tmp_path / "run", data, checkpoint()))
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"run.json"}


def test_another_base_in_the_same_folder_is_noticed(
    checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path
) -> None:
    """Every weight replaced, the file's size the same: what the old base began cannot go on with the new one."""
    base = tmp_path / "base"
    shutil.copytree(checkpoint(), base)
    weigh(open_run(tmp_path / "run", toy_data, base))
    weights = base / "model.safetensors"
    save_file({k: torch.rand_like(v) for k, v in load_file(weights).items()}, weights, metadata={"format": "pt"})
    with pytest.raises(InputError, match="made with other settings, data or base"):
        open_run(tmp_path / "run", toy_data, base)


def test_projections_go_on_from_the_shared_start(
    checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the shared start learnt of projections and h is what each domain's own stage begins with."""
    narrow = checkpoint(hidden_size=8, intermediate_size=16, num_hidden_layers=2)
    run = open_run(tmp_path / "run", toy_data, checkpoint(), student=str(narrow), stages="joint", baseline=False)
    weigh(run)
    teach(run)
    distill(run, "kitchen")
    shared = load_file(run.shared_folder("meta_kd") / "extras.safetensors")
    assert {name.split(".")[0] for name in shared} == {"layers", "feature", "transferable"}
    begun: list[dict[str, torch.Tensor]] = []

    def note(learner: Distillation, *_: object) -> list[dict[str, float]]:
        begun.append({name: value.clone() for name, value in learner.extras.state_dict().items()})
        return []

    monkeypatch.setattr("metakd.pipeline.distill.fit", note)
    folder = distill(run, "books")
    assert all(torch.equal(begun[0][name], shared[name]) for name in shared)
    assert not (folder / "extras.safetensors").exists()


def test_a_run_of_labels_alone_needs_no_teacher_to_learn_from(
    checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path
) -> None:
    results = run_all.run_all(open_run(tmp_path / "run", toy_data, checkpoint(), method="fine_tuned_shared"))
    assert results["average"]["student"]["accuracy"] == results["average"]["fine_tuned_shared"]["accuracy"]


def test_rows_that_the_run_learnt_from_are_told(
    finished_run: Path, toy_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    new, old = (read_examples(toy_data / f"{name}.jsonl") for name in ("test", "train"))
    wrong = [replace(e, label="negative") for e in old if e.label == "positive"][:4]
    rows = write_rows(tmp_path / "rows.jsonl", [*map(as_row, new + wrong)])
    files = (toy_data / "test.jsonl", rows)
    clean, found = (evaluate_file(finished_run, file, tmp_path / "s.json") for file in files)
    assert found["leaked_rows"] == clean["leaked_rows"] + 4
    without = [scores["average"]["student"]["accuracy_without_leaks"] for scores in (clean, found)]
    assert without[0] == without[1] > found["average"]["student"]["accuracy"]
    told = "gone) is not here as it was: rows that it has learnt from are counted, and not told"
    assert "is not here as it was" not in caplog.text
    folder = shutil.copytree(finished_run, tmp_path / "run")
    write_json(folder / "run.json", read_run(folder) | {"data": str(tmp_path / "gone")})
    assert evaluate_file(folder, rows, tmp_path / "s.json")["leaked_rows"] == 0
    assert told in caplog.text


def test_an_unseen_domain_is_scored_by_the_teacher_alone(finished_run: Path, tmp_path: Path) -> None:
    rows = [as_row(e) | {"domain": "garden"} for e in toy_examples(8, 3, "new")]
    found = evaluate_file(finished_run, write_rows(tmp_path / "new.jsonl", rows), tmp_path / "s.json")
    assert list(found["domains"]["garden"]) == ["meta_teacher"]
    known = [as_row(e) for e in toy_examples(8, 4, "known")]
    both = evaluate_file(finished_run, write_rows(tmp_path / "both.jsonl", rows + known), tmp_path / "b.json")
    own = [both["domains"][d]["meta_teacher"]["accuracy"] for d in ("books", "kitchen")]
    assert both["average"]["meta_teacher"]["accuracy"] == sum(own) / 2
    pairs = write_rows(tmp_path / "pairs.jsonl", [row | {"text_pair": "x"} for row in known])
    with pytest.raises(InputError, match="learnt from single texts"):
        evaluate_file(finished_run, pairs, tmp_path / "p.json")
    bad = write_rows(tmp_path / "bad.jsonl", [rows[0] | {"label": "neutral"}])
    with pytest.raises(InputError, match="label 'neutral'"):
        evaluate_file(finished_run, bad, tmp_path / "s2.json")
    assert not (tmp_path / "s2.json").exists()


def test_one_text_is_no_list_of_letters(finished_run: Path) -> None:
    with pytest.raises(InputError, match="list of texts"):
        metakd.Classifier.load(finished_run / "students" / "books").predict("I love it")


@pytest.mark.parametrize("given", [[1], [None], [("one", 2)], [("one",)]])
def test_what_is_no_text_is_refused(finished_run: Path, given: Any) -> None:
    with pytest.raises(InputError, match="pairs of strings"):
        metakd.Classifier.load(finished_run / "students" / "books").predict(given)


def test_fast_flags_are_settings() -> None:
    assert {flag.removeprefix("--").replace("-", "_") for flag in FAST if flag.startswith("--")} <= set(
        Settings.model_fields
    )


def test_scores_are_told_without_the_rows_that_stand_in_train_too(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Of each domain's four dev rows two stand in train: the second average is that of the other two."""
    train, fresh = toy_examples(32, 0, "a"), toy_examples(400, 1, "b")
    known = {e.text for e in train}
    fresh = [e for e in fresh if e.text not in known][:4]
    leaked = train[:4]
    write_rows(tmp_path / "data" / "train.jsonl", [as_row(e) for e in train])
    write_rows(tmp_path / "data" / "dev.jsonl", [as_row(e) for e in leaked + fresh])
    run = open_run(tmp_path / "run", tmp_path / "data", checkpoint(), baseline=False)
    results = run_all.run_all(run)
    assert results["leaked_rows"] == 4
    right: dict[str, list[bool]] = {}
    for example in fresh:
        folder = run.student_folder("meta_kd", example.domain)
        (prediction,) = metakd.Classifier.load(folder).predict([example.text])
        right.setdefault(example.domain, []).append(prediction.label == example.label)
    expected = sum(sum(own) / len(own) for own in right.values()) / len(right)
    assert results["average"]["student"]["accuracy_without_leaks"] == pytest.approx(expected)
    assert "4 of them stand in train as well; averages without those: " in (run.folder / "results.md").read_text()


def test_bfloat16_products_give_about_the_same_students_saved_in_float32(
    checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path
) -> None:
    found = {}
    for precision in ("float32", "bfloat16"):
        run = open_run(tmp_path / precision, toy_data, checkpoint(), precision=precision, match_epochs=2)
        weigh(run)
        teach(run)
        folder = distill(run, "books")
        manifest = read_manifest(folder)
        assert manifest is not None
        assert manifest["precision"] == precision
        found[precision] = load_file(folder / "model.safetensors")
    for name, whole in found["float32"].items():
        half = found["bfloat16"][name]
        assert half.dtype == torch.float32
        assert 0 < (half - whole).norm() < 0.05 * whole.norm().clamp(min=1), name
