"""Domains with labels of their own: a student has those of its domain, and its teacher answers among them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import FAST, Command, as_row, open_run, passed, read_json, read_rows, taught, toy_examples, write_rows
from metakd import Classifier, Run, Settings
from metakd.data.schema import Example
from metakd.evaluation.predictions import predictions_of
from metakd.inference.torch_backend import TorchModel
from metakd.inspection.remarks import remarks
from metakd.methods import METHODS
from metakd.models.loading import load_classifier, load_encoder
from metakd.models.meta_teacher import NO_LAYERS, of_classes
from metakd.pipeline.checks import _accuracy
from metakd.pipeline.distill import distill, distill_all
from metakd.pipeline.teach import load_teacher
from metakd.pipeline.teacher_outputs import centres_in_h, open_teacher_cache
from metakd.utils.artifacts import read_run

OWN = {"books": ["negative", "positive"], "kitchen": ["broken", "positive"]}
ALL = ["broken", "negative", "positive"]


def rows_of(count: int, seed: int, split: str) -> list[Example]:
    """Toy texts, where what is negative of books is broken of kitchens."""
    kitchen = {"negative": "broken", "positive": "positive"}
    rows = toy_examples(count, seed, split)
    return [replace(e, label=kitchen[e.label]) if e.domain == "kitchen" else e for e in rows]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    for seed, (split, count) in enumerate({"train": 256, "dev": 120, "test": 24}.items()):
        write_rows(folder / f"{split}.jsonl", [as_row(e) for e in rows_of(count, seed, split)])
    return folder


def labels_of(folder: Path) -> list[str]:
    config = read_json(folder / "config.json")
    return [config["id2label"][str(i)] for i in range(len(config["id2label"]))]


def test_a_whole_run(metakd: Command, base: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Students, exports and scores know the labels of their domain alone; the meta-teacher knows all."""
    run, models = tmp_path / "run", tmp_path / "models"
    out, _ = passed(metakd("run", "--data", data, "--base", base, "--output", run, *FAST))
    assert "kitchen has no rows of negative in train" in caplog.text
    assert labels_of(run / "meta_teacher") == labels_of(run / "shared_student") == ALL
    assert {d: labels_of(run / "students" / d) for d in OWN} == OWN
    assert read_json(run / "run.json")["classes"] == OWN
    results = read_json(run / "results.json")
    assert all(results["average"][name]["accuracy"] > 0.8 for name in ("meta_teacher", "student", "tfidf"))
    over = results["average"]["meta_teacher"]["accuracy_over_all_labels"]
    assert over <= results["average"]["meta_teacher"]["accuracy"]
    assert "accuracy_over_all_labels" not in results["average"]["student"]
    assert f"among all, meta_teacher is {100 * over:.1f} right" in " ".join(out.split())
    for row in map(json.loads, (run / "predictions.jsonl").read_text().splitlines()):
        assert {label for label, _ in row["models"].values()} <= {*OWN[row["domain"]]}
    assert set(results["calibration"]["temperatures"]) == {*OWN}

    passed(metakd("export", run, "--output", models, "--force"))
    for domain, labels in OWN.items():
        exported, student = (
            Classifier.from_pretrained(models / domain),
            Classifier.from_pretrained(run / "students" / domain),
        )
        assert exported.labels == student.labels == labels
        texts = ["the plot was good", "a dull pan"]
        np.testing.assert_allclose(exported.predict_proba(texts), student.predict_proba(texts), atol=1e-4)
        assert f"`{labels[0]}`, `{labels[1]}`" in (models / domain / "README.md").read_text()
    passed(metakd("report", run))
    passed(metakd("label", "--data", data / "test.jsonl", "--model", run, "--output", tmp_path / "soft.jsonl"))
    for row in read_rows(tmp_path / "soft.jsonl"):
        p = row["probabilities"]
        assert sum(p[label] for label in OWN[row["domain"]]) > 0.999
        assert [*p] == ALL


def test_shared_labels_on_request(base: Path, data: Path, tmp_path: Path) -> None:
    run = taught(open_run(tmp_path / "run", data, base, labels="shared"))
    assert labels_of(distill(run, "books")) == ALL
    assert "classes" not in read_json(run.folder / "run.json")


def test_where_domains_have_the_same_labels_nothing_changes(toy_data: Path, base: Path, tmp_path: Path) -> None:
    runs = [open_run(tmp_path / name, toy_data, base, labels=name) for name in ("own", "shared")]
    one, other = ([run.fingerprints.distill("meta_kd", d) for d in (None, "books")] for run in runs)
    assert one == other
    assert "classes" not in read_json(runs[0].folder / "run.json")


def test_a_domain_of_one_label_keeps_all(base: Path, data: Path, tmp_path: Path) -> None:
    """As a classifier needs two."""
    rows = [e for e in rows_of(64, 0, "train") if e.domain == "kitchen" or e.label == "positive"]
    more = next(replace(e, id="more", label="negative") for e in rows if e.domain == "kitchen")
    write_rows(tmp_path / "lone" / "train.jsonl", [as_row(e) for e in [*rows, more]])
    write_rows(tmp_path / "lone" / "dev.jsonl", [as_row(e) for e in rows_of(8, 1, "dev")])
    run = open_run(tmp_path / "run", tmp_path / "lone", base)
    assert run.data.labels_by_domain == {"books": ["positive"], "kitchen": ALL}
    assert run.features.classes("books") == ALL


def test_the_teachers_target_is_its_softmax_among_the_domains_labels(base: Path, data: Path, tmp_path: Path) -> None:
    """p restricted and normalised, cached or live."""
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    p = logits.softmax(-1)[0]
    expected = torch.tensor([[p[0] / (p[0] + p[2]), p[2] / (p[0] + p[2])]])
    torch.testing.assert_close(of_classes(logits, [0, 2]).softmax(-1), expected)

    run = taught(open_run(tmp_path / "run", data, base))
    cache, places = open_teacher_cache(run, ["meta_kd"]), run.features.places("kitchen")
    assert places == [0, 2]
    kitchen = [e for e in run.data.train if e.domain == "kitchen"][:8]
    rows = cache.rows([e.id for e in kitchen])
    torch.testing.assert_close(cache.of_classes(places).logits(rows), cache.logits(rows)[:, places])
    features = run.features.encode(kitchen, student_of="kitchen")
    assert [run.features.classes("kitchen")[i] for i in features.column("labels")] == [e.label for e in kitchen]
    teacher, batch = load_teacher(run), run.features.collator([*features])
    teacher.places = places
    torch.testing.assert_close(teacher.outputs(batch).logits, cache.logits(rows)[:, places], atol=1e-5, rtol=1e-5)


def test_the_middle_of_a_domain_in_h_is_that_of_all_its_classes(base: Path, data: Path, tmp_path: Path) -> None:
    """Of texts and their windows, but not of texts without labels."""
    texts = [{"text": e.text, "domain": e.domain} for e in toy_examples(16, 9, "u")]
    unlabelled = str(write_rows(tmp_path / "texts.jsonl", texts))
    how = {"method": "cross_domain", "stages": "joint", "windows": 1, "max_length": 6}
    run = taught(open_run(tmp_path / "run", data, base, unlabelled=unlabelled, **how))
    cache = open_teacher_cache(run, ["cross_domain"])
    labelled = [e for e in run.features.student_texts if e.label]
    assert len(run.data.train) < len(labelled) < len(run.features.student_texts)
    for domain, centre in zip(run.data.domains, centres_in_h(run, cache), strict=True):
        means = []
        for label in OWN[domain]:
            rows = cache.rows([e.id for e in labelled if (e.domain, e.label) == (domain, label)])
            means.append(cache.read(torch.tensor(rows), NO_LAYERS).representation.float().mean(0))
        torch.testing.assert_close(centre, torch.stack(means).mean(0))


@pytest.mark.parametrize("method", ["cross_domain", "meta_kd", "metadistil", "self_trained", "soft_labels"])
@pytest.mark.slow
def test_all_kinds_of_methods(method: str, base: Path, data: Path, tmp_path: Path) -> None:
    """Also from text without labels, and from probabilities among which are labels of other domains."""
    settings: dict[str, Any] = {"method": method, "baseline": False, "stages": "joint"}
    source = data
    if method == "soft_labels":
        source, settings["soft_labels"] = tmp_path / "soft", True
        soft = {"probabilities": {"broken": 0.3, "negative": 0.3, "positive": 0.4}}
        rows = [as_row(e) | (soft if i % 3 else {}) for i, e in enumerate(rows_of(64, 0, "train"))]
        write_rows(source / "train.jsonl", rows)
        write_rows(source / "dev.jsonl", [as_row(e) for e in rows_of(8, 1, "dev")])
    elif METHODS[method].needs & {"teacher", "pseudo_labels"}:
        texts = [{"text": e.text, "domain": e.domain} for e in toy_examples(16, 9, "u")]
        settings["unlabelled"] = str(write_rows(tmp_path / "texts.jsonl", texts))
    run = taught(open_run(tmp_path / "run", source, base, **settings))
    folders = distill_all(run, run.data.domains, [method])
    assert {folder.name: labels_of(folder) for folder in folders} == OWN


def test_predictions_are_among_the_domains_labels(base: Path, data: Path, tmp_path: Path) -> None:
    """Their confidence is among those, too; what the model would say among all labels is counted beside it."""
    run = taught(open_run(tmp_path / "run", data, base))
    model, rows = TorchModel.load(run.folders.teacher), [e for e in run.data.splits["dev"] if e.domain == "kitchen"]
    p = model.answers(rows).probabilities
    among = predictions_of(rows, run.data.labels, model, OWN["kitchen"])
    np.testing.assert_array_equal(among.predicted, np.array([0, 2])[p[:, [0, 2]].argmax(1)])
    np.testing.assert_allclose(among.confidence, p[:, [0, 2]].max(1) / p[:, [0, 2]].sum(1), rtol=1e-4)
    truth = np.array([ALL.index(e.label) for e in rows])
    assert among.costs["accuracy_over_all_labels"] == (p.argmax(1) == truth).mean()


def test_a_run_of_before_keeps_all_labels(base: Path, data: Path, tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", data, base, labels="shared")
    description = read_json(run.folder / "run.json")
    del description["settings"]["labels"]
    (run.folder / "run.json").write_text(json.dumps(description))
    settings = Settings.build(read_run(run.folder)["settings"])
    assert Run.assemble(run.folder, settings, data).features.classes("books") == ALL


def test_soft_labels_are_restricted_too(base: Path, tmp_path: Path) -> None:
    """0.3, 0.3 and 0.4 of broken, negative and positive: of a kitchen, 3/7 and 4/7."""
    soft = {"probabilities": {"broken": 0.3, "negative": 0.3, "positive": 0.4}}
    rows = [as_row(e) | (soft if i % 3 else {}) for i, e in enumerate(rows_of(24, 0, "train"))]
    write_rows(tmp_path / "soft" / "train.jsonl", rows)
    write_rows(tmp_path / "soft" / "dev.jsonl", [as_row(e) for e in rows_of(8, 1, "dev")])
    run = open_run(tmp_path / "run", tmp_path / "soft", base, soft_labels=True, gold_weight=0.5)
    kitchen = [e for e in run.data.train if e.domain == "kitchen" and len(e.soft_label) == 3]
    q = run.features.soft_labels(kitchen, "kitchen")["soft_labels"]
    np.testing.assert_allclose(q, [[3 / 7, 4 / 7]] * len(kitchen), rtol=1e-6)
    elsewhere = replace(kitchen[0], soft_label=(("negative", 1.0),), gold=True)
    columns = run.features.soft_labels([kitchen[0], elsewhere], "kitchen")
    assert columns["soft_labels"][1].tolist() == [0, 0]
    assert columns["gold_weights"].tolist() == [0.5, 1]  # nothing is left of its answer


def test_what_the_teacher_finds_likeliest_is_of_the_domain(base: Path, data: Path, tmp_path: Path) -> None:
    """0.5 of books' negative, 0.45 of broken, 0.05 of positive: of a kitchen, 0.9 of broken."""
    run = open_run(tmp_path / "run", data, base)
    logits = torch.tensor([[0.45, 0.5, 0.05]] * 2).log()
    confidences, places = run.features.likeliest(logits, toy_examples(2, 0, "t"))
    assert places.tolist() == [ALL.index("negative"), ALL.index("broken")]
    assert confidences.tolist() == pytest.approx([10 / 11, 0.9])


def test_more_than_ten_labels_keep_their_order(base: Path, tmp_path: Path) -> None:
    """In files, \"10\" stands before \"2\"."""
    rows = [replace(e, label=f"{e.domain} {i // 2 % 12:02}") for i, e in enumerate(toy_examples(48, 0, "train"))]
    write_rows(tmp_path / "many" / "train.jsonl", [as_row(e) for e in rows])
    write_rows(tmp_path / "many" / "dev.jsonl", [as_row(replace(e, id=f"d{e.id}")) for e in rows])
    run = open_run(tmp_path / "run", tmp_path / "many", base)
    labels = run.features.classes("books")
    assert labels == [f"books {i:02}" for i in range(12)]
    load_encoder(base, labels).save_pretrained(tmp_path / "student")
    books = [e for e in run.data.train if e.domain == "books"]
    right = torch.tensor([labels.index(e.label) for e in books])
    student, p = load_classifier(tmp_path / "student"), torch.eye(12)[right]
    assert _accuracy(run, student, p, books)["accuracy"] == 1
    assert _accuracy(run, student, p.roll(1, 1), books)["accuracy"] == 0


def test_a_missing_label_is_named() -> None:
    """Where a domain lacks many, their count; of what is scored, those that its train has, and those that it lacks."""
    cannot = "; unless --labels shared is set, a student cannot choose what its domain lacks"
    few = {"books": {"a": 60, "b": 60, "c": 60}, "films": {"a": 60, "b": 60}, "music": {"a": 60}}
    test = {"books": {"a": 60, "b": 60}, "films": {"a": 60, "b": 60, "c": 7}, "music": {"a": 60, "b": 3}}
    assert remarks({"train": few, "test": test}, ["a", "b", "c"]) == [
        f"films has no rows of c in train{cannot}",
        "music has no rows of b or c in train",
        "books has no rows of c in test",
        "7 rows of films in test have a label that the domain lacks in train (c): unless --labels shared is set, no "
        "model can be right there",
    ]
    apart = {"books": dict.fromkeys("abcdef", 60), "films": dict.fromkeys("fghij", 60)}
    each = "books 6, films 5 of 10; 1 of them are in several domains"
    assert remarks({"train": apart, "test": apart}, [*"abcdefghij"]) == [
        f"domains have labels of their own ({each}){cannot}"
    ]
