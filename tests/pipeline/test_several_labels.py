"""Texts with several labels, or none: from the data to teacher, students, scores, exports and predictions."""

import csv
import json
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import (
    BAD,
    FAST,
    FILLERS,
    GOOD,
    TOPICS,
    Command,
    open_run,
    passed,
    read_json,
    read_rows,
    refused,
    reopen,
    taught,
    write_rows,
)
from metakd import Classifier, InputError, Settings
from metakd.data.dataset import load_dataset
from metakd.data.schema import Example
from metakd.evaluation.metrics import score
from metakd.evaluation.predictions import predictions_of
from metakd.evaluation.thresholds import choose_thresholds
from metakd.experiments.runner import experiment
from metakd.export import budget_search
from metakd.export.candidates import Candidate
from metakd.inference.calibration import Calibration, load_calibration, write_calibration
from metakd.inference.long_texts import combined, logs, probabilities
from metakd.inference.onnx_backend import OnnxModel
from metakd.inference.torch_backend import TorchModel
from metakd.models.class_head import find_head, start_at_shares
from metakd.models.loading import load_classifier, load_encoder
from metakd.models.meta_teacher import MetaTeacher, TeacherEnsemble, TeacherOutputs
from metakd.pipeline import checks
from metakd.pipeline.distill import distill
from metakd.pipeline.evaluate import evaluate
from metakd.pipeline.readings import rows_to_decide_on, write_thresholds
from metakd.pipeline.reproduce import reproduce
from metakd.pipeline.teach import _untrained

pytestmark = [pytest.mark.xdist_group("several_labels"), pytest.mark.slow]  # in one process, as fixtures take long

LABELS = {"books": ["blame", "plot", "praise"], "kitchen": ["blame", "pan", "praise"]}
WORDS = {"praise": GOOD, "blame": BAD, "plot": ["plot"], "pan": ["pan"]}


def rows_of(count: int, seed: int, split: str) -> list[dict[str, Any]]:
    """Toy texts: a word gives each label away, and an eighth of the texts have none."""
    draw, rows = random.Random(seed), []
    for number in range(count):
        domain = ["books", "kitchen"][number % 2]
        labels = [label for label in LABELS[domain] if draw.random() < 0.5]
        words = [draw.choice(WORDS[label]) for label in labels]
        words += [draw.choice(TOPICS[domain][1:]), *(draw.choice(FILLERS) for _ in range(3))]
        draw.shuffle(words)
        rows.append({"id": f"{split}{number}", "domain": domain, "text": " ".join(words), "labels": labels})
    return rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    for seed, (split, count) in enumerate({"train": 320, "dev": 120, "test": 80}.items()):
        write_rows(folder / f"{split}.jsonl", rows_of(count, seed, split))
    return folder


@pytest.fixture(scope="module")
def run(data: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run by the command as a user types it."""
    folder = tmp_path_factory.mktemp("runs") / "several"
    command = [sys.executable, "-m", "metakd", "run", "--data", data, "--base", base, "--output", folder, *FAST]
    longer = ["--shared-epochs", "8", "--stages", "joint", "--match-epochs", "0", "--predict-epochs", "2"]
    done = subprocess.run([*map(str, command), *longer], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Micro-F1 in percent" in done.stdout
    return folder


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "models"
    command = [sys.executable, "-m", "metakd", "export", run, "--output", folder, "--force"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_models_learn_the_labels_of_their_domain(run: Path) -> None:
    results = read_json(run / "results.json")
    assert read_json(run / "run.json")["classes"] == LABELS
    for name in ("meta_teacher", "student", "tfidf"):
        average = results["average"][name]
        assert average["micro_f1"] > 0.7
        low, high = average["micro_f1_interval"]
        assert low < average["micro_f1"] < high
    for folder in ("meta_teacher", "shared_student", "students/books", "fine_tuned_shared/kitchen"):
        assert read_json(run / folder / "config.json")["problem_type"] == "multi_label_classification"


def test_scores_are_those_of_the_rows(run: Path, data: Path) -> None:
    """Counted once more from predictions.jsonl: micro-F1, and accuracy of whole sets of labels."""
    results = read_json(run / "results.json")["domains"]
    for domain in LABELS:
        rows = [row for row in read_rows(run / "predictions.jsonl") if row["domain"] == domain]
        pairs = [({*json.loads(row["label"])}, {*json.loads(row["models"]["student"][0])}) for row in rows]
        hits, sizes = sum(len(a & b) for a, b in pairs), sum(len(a) + len(b) for a, b in pairs)
        scores = results[domain]["student"]
        assert scores["micro_f1"] == pytest.approx(2 * hits / sizes)
        assert scores["accuracy"] == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
        assert scores["examples"] == len(rows) == 40
        assert any(not a for a, _ in pairs)  # texts without a label are scored too


def test_each_label_has_its_threshold(metakd: Command, run: Path, exported: Path, tmp_path: Path) -> None:
    """Those of results.json are beside the model and in its export. With others, predictions are others."""
    found = read_json(run / "results.json")["calibration"]["thresholds"]
    assert {*found} == {"meta_teacher", "student", "fine_tuned_shared", "tfidf"}
    assert found["meta_teacher"]["books"] == found["meta_teacher"]["kitchen"]  # one model
    ours = Classifier.from_pretrained(run / "students" / "books")
    assert ours.thresholds == Classifier.from_pretrained(exported / "books").thresholds == found["student"]["books"]
    assert {*found["student"]["books"].values(), *found["student"]["kitchen"].values()} != {0.5}
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    calibration = load_calibration(copy / "students" / "books")
    texts = [row["text"] for row in rows_of(40, 5, "x")]
    p = ours.predict_proba(texts)
    write_calibration(copy / "students" / "books", calibration._replace(thresholds=(0.9, 0.1, 0.999)))
    answers = Classifier.from_pretrained(copy / "students" / "books").predict(texts)
    assert [{each.label for each in row} for row in answers] == [
        {label for label, each, least in zip(ours.labels, row, (0.9, 0.1, 0.999), strict=True) if each > least}
        for row in p
    ]
    assert "not scored, which decides" in refused(metakd("export", copy, "--output", tmp_path / "onnx"))
    write_calibration(copy / "students" / "books", calibration._replace(thresholds=(0.9, 0.1)))
    with pytest.raises(InputError, match="is damaged; delete it, and score its run again"):
        Classifier.from_pretrained(copy / "students" / "books")


@pytest.mark.parametrize("wrong", [["0.5"] * 3, [0.5, 0.5], [0.5, 0.5, float("nan")], [0.5, 0.5, 2], None])
def test_damaged_thresholds_of_an_export_are_refused(wrong: Any, exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported / "books", tmp_path / "books"))
    (folder / "manifest.json").unlink()  # which tells that a file has changed
    description = read_json(folder / "model.json") | {"thresholds": wrong}
    (folder / "model.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match="thresholds: expected 3 numbers between 0 and 1"):
        Classifier.from_pretrained(folder)


@pytest.mark.parametrize("domain", [None, "kitchen"])
def test_without_dev_one_half_stays(domain: str | None, run: Path, tmp_path: Path) -> None:
    """Of all domains, or of one; then the teacher has thresholds all the same, from the other's texts."""
    opened = reopen(Path(shutil.copytree(run, tmp_path / "run")))
    dev = [e for e in opened.data.splits["dev"] if domain not in (None, e.domain)]
    results = evaluate(replace(opened, data=replace(opened.data, splits=opened.data.splits | {"dev": dev})))
    found = results["calibration"]["thresholds"]
    for model in ("student", "fine_tuned_shared", "tfidf"):
        assert {*found[model]["kitchen"].values()} == {0.5}
    assert ({*found["meta_teacher"]["books"].values()} == {0.5}) == (domain is None)


def test_a_label_that_a_domain_lacks_decides_nothing(run: Path, tmp_path: Path) -> None:
    """A teacher that gives books pans and kitchens plots, which none of them can have, has the thresholds as before."""
    opened = reopen(Path(shutil.copytree(run, tmp_path / "run")))
    fleet = {"meta_teacher": dict.fromkeys(LABELS, opened.folders.teacher)}
    before = write_thresholds(opened, fleet, {})["meta_teacher"]["books"].by_label
    assert {*before.values()} != {0.5}
    answers = TorchModel.answers

    def mistaken(self: TorchModel, examples: Any) -> Any:
        found = answers(self, examples)
        for row, e in enumerate(examples):
            found.probabilities[row, self.labels.index({"books": "pan", "kitchen": "plot"}[e.domain])] = row % 19 / 20
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TorchModel, "answers", mistaken)
        assert write_thresholds(opened, fleet, {})["meta_teacher"]["books"].by_label == before


def test_an_unsure_teacher_that_tells_the_labels_is_not_near_chance(run: Path) -> None:
    """A label that a text has gets 0.3, any other 0.1: at one half, none would be given."""
    opened = reopen(run)
    dev, teacher = opened.data.splits["dev"], load_classifier(opened.folders.teacher)
    names = [teacher.config.id2label[place] for place in range(teacher.config.num_labels)]
    p = torch.tensor([[0.3 if name in e.classes else 0.1 for name in names] for e in dev])
    check = checks._accuracy(opened, teacher, p, dev)
    assert check["accuracy"] == 1
    assert not checks.near_chance(check)
    assert checks.near_chance(checks._accuracy(opened, teacher, p[torch.randperm(len(p))], dev))


def test_fit_delivers_thresholds(run: Path, tmp_path: Path) -> None:
    """Chosen once for the trained students, kept beside them, and written again where they were lost."""
    opened = reopen(Path(shutil.copytree(run, tmp_path / "run")))
    students = {domain: opened.folders.student("meta_kd", domain) for domain in LABELS}
    figures = budget_search._calibrate(opened, students)
    write_calibration(students["books"], Calibration())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget_search, "write_thresholds", None)
        assert budget_search._calibrate(opened, students) == figures
    expected = figures["thresholds"]["student"]["books"]
    assert Classifier.from_pretrained(students["books"]).thresholds == expected
    candidate = Candidate("layers=2", False, False, 16, 2.0, 1.5)
    folder = budget_search._export(opened, "books", students["books"], candidate, [candidate.reading])
    assert Classifier.from_pretrained(folder / "model").thresholds == expected


def test_a_run_scored_before_there_were_thresholds_is_scored_again_to_be_repeated(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    results = read_json(copy / "results.json")
    results["calibration"].pop("thresholds")
    (copy / "results.json").write_text(json.dumps(results))
    manifest = read_json(copy / "manifest.json")
    manifest["files"].pop("results.json")
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="scored before thresholds were chosen; run `metakd evaluate"):
        reproduce(copy, tmp_path / "again")


def test_where_dev_is_scored_thresholds_are_cross_fitted(run: Path, tmp_path: Path) -> None:
    """Without test, a text of dev is judged by thresholds that were chosen without it."""
    opened = reopen(Path(shutil.copytree(run, tmp_path / "run")))
    splits = {name: rows for name, rows in opened.data.splits.items() if name != "test"}
    evaluate(replace(opened, data=replace(opened.data, splits=splits)))
    dev = [e for e in rows_to_decide_on(opened) if e.domain == "books"]
    model = TorchModel.load(tmp_path / "run" / "students" / "books")
    p = model.answers(dev).probabilities.astype(np.float64)
    chosen = choose_thresholds(dev, model.labels, p, opened.settings.seed)
    assert [*chosen.by_label.values()] == model.thresholds.tolist()
    assert len(dev) == len(chosen.of_texts) == 60
    scored = {row["id"]: row["models"]["student"][0] for row in read_rows(tmp_path / "run" / "predictions.jsonl")}
    given = [[label for label, yes in zip(model.labels, row, strict=True) if yes] for row in p > chosen.of(dev)]
    assert [scored[e.id] for e in dev] == [json.dumps(labels) for labels in given]


def test_pytorch_and_onnx_agree(run: Path, exported: Path, data: Path) -> None:
    texts = [Example(row["id"], row["text"], None, "", "books") for row in read_rows(data / "test.jsonl")]
    texts.append(Example("long", "plot good " * 40, None, "", "books"))
    ours, theirs = TorchModel.load(run / "students" / "books"), OnnxModel.load(exported / "books")
    assert ours.several_labels
    assert theirs.several_labels
    expected = ours.answers(texts)
    assert expected.windows_read[-1] > 1
    np.testing.assert_allclose(theirs.answers(texts).probabilities, expected.probabilities, atol=1e-5)
    with torch.no_grad():  # by themselves: they need not sum to 1
        logits = load_classifier(run / "students" / "books")(
            **ours.tokenizer(texts[0].text, return_tensors="pt")
        ).logits
    temperature = read_json(run / "results.json")["calibration"]["temperatures"]["books"]
    np.testing.assert_allclose(expected.probabilities[0], (logits[0] / temperature).sigmoid(), atol=1e-5)
    config = read_json(exported / "books" / "config.json")
    assert config["problem_type"] == "multi_label_classification"
    assert "several of its labels" in (exported / "books" / "README.md").read_text()


def test_windows_are_joined_by_the_mean_of_their_logits() -> None:
    """By hand: 2 and −4 are −1 on average. What is rounded to 1, z = 18, counts as 16: (16 − 30) / 4 is no."""
    z = np.array([[2.0, 18.0], [-4.0, -10.0], [0.0, -10.0], [-2.0, -10.0]], np.float32)
    p = probabilities(z, several=True)
    answers = combined(logs(p, several=True), several=True)
    np.testing.assert_allclose(answers[1], 1 / (1 + np.exp([1.0, -3.0])), rtol=1e-5)
    np.testing.assert_allclose(answers[3], 1 / (1 + np.exp([1.0, 3.5])), rtol=1e-5)


def test_a_classifier_says_which_labels_a_text_has(exported: Path) -> None:
    classifier = Classifier.from_pretrained(exported / "books")
    text = "the plot was good and lovely"
    (p,) = classifier.predict_proba([text])
    (labels,) = classifier.predict([text])
    least = [*classifier.thresholds.values()]
    assert [each.label for each in labels] == [classifier.labels[i] for i in (-p).argsort() if p[i] > least[i]]
    assert len(classifier.predict([text], top_k=2)[0]) == 2
    assert len(classifier.predict([text], top_k=5)[0]) == 3


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_predict_writes_labels_and_probabilities(
    metakd: Command, run: Path, data: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"out{suffix}"
    passed(metakd("predict", run, "--input", data / "test.jsonl", "--output", out, "--probabilities"))
    rows: list[Any]
    if suffix == ".jsonl":
        rows = read_rows(out)
    elif suffix == ".csv":
        with out.open(encoding="utf-8", newline="") as file:
            rows = [row | {"predicted_labels": json.loads(row["predicted_labels"])} for row in csv.DictReader(file)]
    else:
        rows = pytest.importorskip("pyarrow.parquet").read_table(out).to_pylist()
    scored = {row["id"]: json.loads(row["models"]["student"][0]) for row in read_rows(run / "predictions.jsonl")}
    assert {row["id"]: sorted(row["predicted_labels"]) for row in rows} == scored
    assert "predicted_label" not in rows[0]


def test_a_run_is_scored_on_another_file(metakd: Command, run: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    passed(metakd("evaluate", run, "--data", data / "dev.jsonl", "--output", out))
    assert read_json(out)["average"]["student"]["micro_f1"] > 0.7
    single = [{"text": "good", "domain": "books", "label": "praise"}]
    file = write_rows(tmp_path / "x.jsonl", single)
    message = refused(metakd("evaluate", run, "--data", file, "--output", out, "--overwrite"))
    assert "a text has one label here, and several labels in the run; write labels as its data does" in message


def test_a_report_is_drawn(metakd: Command, run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    passed(metakd("report", copy))
    page = (copy / "report.html").read_text(encoding="utf-8")
    assert "train 320, dev 120, test 80" in page
    assert "Micro-F1" in page
    assert "percent micro-F1; texts with exactly their labels: " in page


METHODS = ("meta_kd", "metadistil", "hrkd", "fine_tuned", "self_trained")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_answers_each_label_by_itself(
    method: str, run: Path, base: Path, data: Path, tmp_path: Path
) -> None:
    """From text without labels too, which gets its labels, t and λ from the teacher."""
    extra = [{"text": row["text"] + " .", "domain": row["domain"]} for row in rows_of(20, 9, "u")]
    unlabelled = write_rows(tmp_path / "more.jsonl", [*extra, {"text": "this very it", "domain": "books"}])
    rates = {"shared_learning_rate": 5e-3, "predict_learning_rate": 5e-3, "baseline_learning_rate": 5e-3}
    how = {"method": method, "stages": "joint", "shared_epochs": 8, "predict_epochs": 4, "min_confidence": 0.01}
    teacher = {"teacher": str(run / "meta_teacher"), "teacher_epochs": 0, "batch_size": 8, "windows": 0}
    opened = open_run(tmp_path / "run", data, base, unlabelled=str(unlabelled), **(rates | how | teacher))
    folder = distill(taught(opened), "books")
    assert load_classifier(folder).config.problem_type == "multi_label_classification"
    test = [e for e in opened.data.splits["test"] if e.domain == "books"]
    scores = score({"books": predictions_of(test, opened.data.labels, TorchModel.load(folder))}, {"books"}, 4)
    assert scores["average"]["micro_f1"] > 0.7  # all labels for each text: 0.67
    if method == "meta_kd":
        weights = read_rows(tmp_path / "run" / "unlabelled_weights" / "weights.jsonl")
        assert len(weights) == len(opened.data.unlabelled) == 21
        assert all(isinstance(json.loads(row["label"]), list) and row["weight"] >= 0 for row in weights)


def test_a_new_head_starts_at_the_labels_shares(base: Path, data: Path, tmp_path: Path) -> None:
    """As if two more texts had each label with one half; a head that has learnt stays as it is."""
    run = open_run(tmp_path / "run", data, base)
    head = find_head(_untrained(run).encoder)
    assert head is not None
    has = np.array([[label in e.classes for label in run.data.labels] for e in run.data.train])
    shares = (has.sum(0) + 1) / (len(has) + 2)
    np.testing.assert_allclose(head.bias.detach(), np.log(shares / (1 - shares)), rtol=1e-5)
    model = load_encoder(base, ["a", "b"])
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([0.0, 1.0]))
    start_at_shares(model, torch.tensor([0.1, 0.1]))
    assert model.classifier.bias.tolist() == [0, 1]


def test_experiments_refuse_variants_for_one_label(base: Path, data: Path, tmp_path: Path) -> None:
    settings = Settings.build({"base": str(base), "max_length": 16, "student": "layers=2"})
    with pytest.raises(InputError) as refusal:
        experiment("main", load_dataset(data), settings, tmp_path / "out", seeds=[0])
    for part in (
        "method cross_domain: made for",
        "heads domain: made for texts with one label",
        "leave that variant out with",
    ):
        assert part in str(refusal.value)


def test_a_mean_of_several_teachers_is_of_their_probabilities(run: Path) -> None:
    """Each label's probability, (0.9 + 0.5) / 2, as the odds 0.7 : 0.3."""
    encoder = load_classifier(run / "meta_teacher")
    member = MetaTeacher(encoder, 2, "none", 0.0)
    ensemble = TeacherEnsemble([member, member], 2)
    odds = iter([torch.full((1, 4), float(np.log(9))), torch.zeros(1, 4)])
    outputs = lambda *_: TeacherOutputs(next(odds), torch.zeros(1, 2), {}, {})  # noqa: E731
    for each in ensemble.members:
        each.outputs = outputs  # type: ignore[method-assign]
    logits = ensemble.outputs({"domains": torch.zeros(1, dtype=torch.long)}).logits
    np.testing.assert_allclose(logits.sigmoid(), np.full((1, 4), 0.7), atol=1e-6)


def test_what_is_made_for_one_label_is_refused(metakd: Command, base: Path, data: Path, tmp_path: Path) -> None:
    flags = [
        "--heads",
        "domain",
        "--long-texts",
        "adaptive",
        "--method",
        "cross_domain",
        "--soft-labels",
        "--max-length",
        16,
    ]
    rows = [row | {"teacher_label": "praise"} for row in rows_of(40, 1, "t")]
    file = write_rows(tmp_path / "soft" / "train.jsonl", rows).parent
    write_rows(file / "test.jsonl", rows_of(20, 2, "x"))
    message = refused(metakd("run", "--data", file, "--base", base, "--output", tmp_path / "run", *flags))
    for part in ("--heads domain", "--long-texts adaptive", "--method cross_domain", "--soft-labels"):
        assert f"{part}: made for texts with one label" in message
    assert not (tmp_path / "run").exists()
    plain = write_rows(tmp_path / "plain" / "train.jsonl", rows_of(40, 1, "t")).parent
    command = ("run", "--data", plain, "--base", base, "--output", tmp_path / "run", "--class-weights", "balanced")
    assert "--class-weights: made for texts with one label; leave it out" in refused(metakd(*command))
    texts = [{"text": row["text"], "domain": row["domain"]} for row in rows_of(40, 3, "u")]
    other = write_rows(tmp_path / "unlabelled" / "train.jsonl", texts)
    more = ("--unlabelled", other, "--max-share", 0.5, "--max-length", 16)
    assert "--max-share: made for texts with one label; leave it out" in refused(metakd(*command[:-2], *more))


def test_a_teacher_of_the_other_kind_is_refused(metakd: Command, run: Path, finished_run: Path, tmp_path: Path) -> None:
    single, several = finished_run / "meta_teacher", run / "meta_teacher"
    flags = ["--max-length", 16, "--baseline"]
    rows = [row | {"label": row["labels"][0], "labels": ""} for row in rows_of(400, 5, "s") if row["labels"]]
    one = write_rows(tmp_path / "one.jsonl", rows)
    message = refused(metakd("run", "--data", one, "--teacher", several, "--output", tmp_path / "a", *flags))
    assert "gives a text several labels, but the data one label; use --base instead of --teacher" in message
    rows = [
        row | {"labels": [each for each in row["labels"] if each in ("blame", "praise")]} for row in rows_of(40, 1, "t")
    ]
    file = write_rows(tmp_path / "two" / "train.jsonl", rows).parent
    write_rows(file / "test.jsonl", [row for row in rows_of(20, 2, "x") if not {*row["labels"]} & {"plot", "pan"}])
    names = ["--teacher-labels", "blame,praise"]
    message = refused(metakd("run", "--data", file, "--teacher", single, "--output", tmp_path / "b", *flags, *names))
    assert "gives a text one label, but the data several labels; use --base instead of --teacher" in message


def test_one_file_is_cut_by_the_rarest_label(tmp_path: Path) -> None:
    rows = rows_of(400, 3, "r")
    data = load_dataset(write_rows(tmp_path / "all.jsonl", rows), cut="70/10/20")
    assert data.several_labels
    assert data.labels_by_domain == LABELS
    for domain, labels in LABELS.items():
        test = [e for e in data.splits["test"] if e.domain == domain]
        assert {label for e in test for label in e.classes} == {*labels}
        assert any(e.labels == () for e in test)
