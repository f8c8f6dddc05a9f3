"""A budget in, models out: measured before trained, delivered only if they meet it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from conftest import (
    FAST,
    Checkpoint,
    Command,
    as_row,
    passed,
    read_json,
    read_rows,
    refused,
    reopen,
    toy_examples,
    write_rows,
    write_toy,
)
from metakd import Classifier, Settings
from metakd.data.dataset import load_dataset
from metakd.data.schema import folder_name
from metakd.evaluation.costs import measure_latencies
from metakd.export import budget_search, candidates
from metakd.export.candidates import Budget, Candidate, measure_candidates
from metakd.export.onnx_format import Parity
from metakd.inference.calibration import Calibration, write_calibration
from metakd.inference.torch_backend import TorchModel
from metakd.utils.artifacts import STEP_VERSIONS
from metakd.utils.console import notice

WRONG = {"positive": "negative", "negative": "positive"}


def test_excess_has_the_limits_that_fail_and_by_how_much() -> None:
    """5.5 ms where 5 are allowed, 12.25 MB of 12, 0.85 where 0.86 is required."""
    budget = Budget(p95_ms=5, max_mb=12, min_accuracy=0.86)
    assert budget.excess(5.5, 12.25e6, 0.85) == {
        "p95 5.50 ms, 0.50 too slow": pytest.approx(0.1),
        "12.25 MB, 0.25 too large": pytest.approx(1 / 48),
        "accuracy 0.850, 0.010 too low": pytest.approx(1 / 86),
    }
    assert budget.excess(5, 12e6, 0.86) == budget.excess(5, 12e6) == {}
    assert Budget().excess(1e9, 1e12, 0.0) == {}


def test_the_most_accurate_is_delivered_then_the_smallest(finished_run: Path, tmp_path: Path) -> None:
    """Of 0.9 in 9 MB, 0.9 in 5 MB, and 0.95 in 20 MB that is above the budget, the second."""
    run, output, forms = reopen(finished_run), tmp_path / "out", []
    sureness = [
        {"log_likelihood_loss": 0.4, "calibration_error": 0.05, "ece": 0.07, "ece_of_chance": 0.03},
        {"log_likelihood_loss": 0.3, "calibration_error": 0.01, "ece": 0.04, "ece_of_chance": 0.03},
    ]
    calibration = {"temperatures": {"books": 1.25}, "texts": 60, "before": sureness[0], "after": sureness[1]}
    for place, (score, size) in enumerate(((0.9, 9e6), (0.9, 5e6), (0.95, 20e6))):
        write_rows(tmp_path / str(place) / "model.json", [{"max_length": 16, "place": place}])
        write_rows(tmp_path / str(place) / "tokenizer_config.json", [{"model_max_length": 16}])
        candidate = Candidate(f"layers={place}", True, False, 8, 2.0, 1.5, size)
        parity = Parity(9, 8, 0.25)._asdict()
        forms.append(budget_search.Form("books", candidate, score, tmp_path / str(place), run, calibration, parity))
    data = budget_search.MultiDomainDataset("toy", None, {"train": [], "dev": []}, ["a", "b"], ["books"])
    results, faults = budget_search._deliver(data, output, Budget(max_mb=10), [], forms)
    assert not faults
    assert results["delivered"]["books"]["student"] == "layers=1"
    reading = {"max_length": 8, "most_windows": 1, "stride": 0, "enough": None}
    assert read_json(output / "books" / "model.json") == {"max_length": 8, "place": 1, "reading": reading}
    assert read_json(output / "books" / "tokenizer_config.json") == {"model_max_length": 8}
    card = (output / "books" / "README.md").read_text("utf-8")
    assert "layers=1, int8, whole table, 8 tokens" in card
    assert (
        "divided by 1.25. On 60 rows of dev in all domains, cross-fitted, before the export (--long-texts mean)" in card
    )
    assert "negative log-likelihood is 0.300 (0.400 without), the calibration error 0.010 (0.050 without)" in card
    assert "that error is 0.040 (0.070 without); exact probabilities would show 0.030 on so many rows" in card
    assert "of 9 real texts, this file gives 8 the label that the model has in PyTorch" in card
    assert results["calibration"]["layers=1"] == calibration
    _, faults = budget_search._deliver(data, output, Budget(max_mb=1), [], forms)
    assert faults == ["books: 5.00 MB, 4.00 too large (layers=1, int8, whole table, 8 tokens)"]
    assert not (output / "books").exists()  # it was delivered by the other budget


def test_no_domain_has_the_folder_that_fit_works_in() -> None:
    names = budget_search.WORK_FOLDER, "work", "fit work"
    assert budget_search.WORK_FOLDER not in [folder_name(name) for name in names]


@pytest.fixture
def fit(metakd: Command, toy_data: Path, base: Path, tmp_path: Path) -> Command:
    """fit('--max-mb', 1) -> (exit code, output, errors) of `metakd fit` into tmp_path / "fit"."""

    def call(*flags: object, data: Path = toy_data) -> Any:
        shared = ("--data", data, "--base", base, "--output", tmp_path / "fit", "--max-length", "16")
        return metakd("fit", *shared, *flags)

    return call


@pytest.mark.slow
def test_a_budget_becomes_models_and_the_same_again_costs_nothing(fit: Command, tmp_path: Path) -> None:
    folder, pairs = tmp_path / "fit", zip(FAST[1::2], FAST[2::2], strict=True)
    decided = ("--student", "--max-length")
    fast = [FAST[0], *(word for pair in pairs if pair[0] not in decided for word in pair)]
    budget = ("--p95-ms", "500", "--max-mb", "50", "--min-accuracy", "0.7", "--most", "1")
    data = write_toy(tmp_path / "toy", train=256, dev=64, test=24)
    rows = read_rows(data / "dev.jsonl")
    rows[::8] = [row | {"label": WRONG[row["label"]]} for row in rows[::8]]
    write_rows(data / "dev.jsonl", rows)  # models are too sure for this dev
    out, err = passed(fit(*fast, *budget, data=data))
    assert "Best models within the budget" in out
    assert "measuring layers=3 (2 of 4)" in err
    assert re.search(r"training layers=4 \(1 of 1\), about \d+\.\d minutes left", err)
    (one,) = Classifier.from_pretrained(folder / "books").predict(["a lovely page"])
    assert one.label == "positive"
    results = read_json(folder / "fit.json")
    assert {row["student"] for row in results["candidates"]} == {f"layers={n}" for n in range(1, 5)}
    assert {row["student"] for row in results["tried"]} == {"layers=4"}
    assert set(results["delivered"]) == {"books", "kitchen"}
    (calibration,) = results["calibration"].values()
    assert calibration["after"]["log_likelihood_loss"] < calibration["before"]["log_likelihood_loss"]
    assert (
        f"logits were divided by {calibration['temperatures']['books']:.2f}"
        in (folder / "books" / "README.md").read_text()
    )
    forms = [{key: row[key] for key in ("student", "int8", "max_length", "p95")} for row in results["candidates"]]
    assert all(any(form.items() <= row.items() for form in forms) for row in results["tried"])  # not timed again
    assert results["delivered"]["books"]["test_accuracy"] > 0.7
    assert (folder / "fit.html").stat().st_size > 100_000

    before = {path: path.stat().st_mtime_ns for path in (folder / "fit.work").rglob("manifest.json")}
    assert not re.search("measuring|training", passed(fit(*fast, *budget, data=data))[1])
    assert {path: path.stat().st_mtime_ns for path in before} == before

    message = refused(fit(*fast, "--max-mb", "0.0001", data=data))
    assert re.search("no candidate meets the budget on this machine; the closest is layers=.*too large", message)
    assert not (folder / "books").exists()  # what a more generous budget delivered
    assert not (folder / "fit.html").exists()
    results = read_json(folder / "fit.json")
    assert results["delivered"] == {}
    assert results["candidates"]


@pytest.mark.slow
def test_what_a_stopped_fit_has_measured_is_not_measured_again(fit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped while it measures the third of four students; the next call begins with that one."""
    measure, seen = candidates._measure, list[str]()

    def stop_once(data: Any, settings: Settings, work: Path, student: str) -> list[Candidate]:
        seen.append(student)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return measure(data, settings, work, student)

    monkeypatch.setattr(candidates, "_measure", stop_once)
    assert fit("--max-mb", "0.0001")[0] == 130
    assert seen == ["layers=4", "layers=3", "layers=2"]
    assert "no candidate meets the budget" in refused(fit("--max-mb", "0.0001"))
    assert seen[3:] == ["layers=2", "layers=1"]


@pytest.mark.slow
def test_a_form_is_scored_again_when_dev_has_changed(run_copy: Path) -> None:
    run, candidate = reopen(run_copy), Candidate("layers=2", False, False, 16, 2.0, 1.5)
    splits = run.data.splits | {"dev": [*run.data.splits["dev"], *toy_examples(1, 9, "new")]}
    more = replace(run, data=replace(run.data, splits=splits))
    student = run.folders.student("meta_kd", "books")
    before, again, after = (
        budget_search._export(r, "books", student, candidate, [candidate.reading]) for r in (run, run, more)
    )
    assert before == again != after


@pytest.mark.slow
def test_models_are_as_sure_as_dev_says(run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a dev whose every fifth label is wrong. T is found once, and written again where it is lost; with another T,
    the export is made again."""
    run, candidate = reopen(run_copy), Candidate("layers=2", False, False, 16, 2.0, 1.5)
    dev = [replace(e, label=WRONG[e.label]) if i % 5 == 0 else e for i, e in enumerate(toy_examples(120, 9, "new"))]
    splits = run.data.splits | {"dev": dev}
    run = replace(run, data=replace(run.data, splits=splits))
    students = {domain: run.folders.student("meta_kd", domain) for domain in run.data.domains}
    figures, texts = budget_search._calibrate(run, students), [e.text for e in toy_examples(12, 5, "n")]
    student, t = students["books"], figures["temperatures"]["books"]
    raw = TorchModel.load(student, calibrated=False).answers(toy_examples(12, 5, "n")).probabilities
    monkeypatch.setattr(budget_search, "write_temperatures", None)
    write_calibration(student, Calibration(3.0))
    other = budget_search._export(run, "books", student, candidate, [candidate.reading])
    assert budget_search._calibrate(run, students) == figures
    sure = budget_search._export(run, "books", student, candidate, [candidate.reading])
    for folder, temperature in ((other, 3.0), (sure, t)):
        p = Classifier.from_pretrained(folder / "model").predict_proba(texts)
        np.testing.assert_allclose(p, softmax(np.log(raw) / temperature, axis=-1), atol=1e-4)
    assert t != 1
    adaptive = run.settings.model_copy(update={"long_texts": "adaptive"})
    assert budget_search._run_of(run.data, adaptive, run.folder, "layers=2").settings.long_texts == "mean"


@pytest.mark.slow
def test_another_way_of_measuring_measures_again(
    toy_data: Path, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One student in four forms, each on texts of all of dev; the same again only if the way of measuring changes."""
    sampled, data, measure = list[Any](), load_dataset(toy_data), measure_latencies
    settings = Settings(base=str(checkpoint(num_hidden_layers=1)), max_length=16)

    def measured(contenders: Any, examples: Any, seed: int) -> Any:
        sampled.append(examples)
        return measure(contenders, examples, seed)

    monkeypatch.setattr(candidates, "measure_latencies", measured)
    for _ in range(2):
        measure_candidates(data, settings, tmp_path, [])
        assert sampled == 4 * [data.splits["dev"]]
    monkeypatch.setitem(STEP_VERSIONS, "fit", STEP_VERSIONS["fit"] + 1)
    measure_candidates(data, settings, tmp_path, [])
    measure_candidates(data, settings.model_copy(update={"labels": "shared"}), tmp_path, [])
    monkeypatch.setattr("importlib.metadata.version", lambda package: f"{package} 2")
    measure_candidates(data, settings, tmp_path, [])
    assert len(sampled) == 4 * 4


def test_times_of_a_busy_machine_are_named(
    fit: Command, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when they are read again; not if no limit is on time."""
    busy = Candidate("layers=1", False, False, 16, 2.0, 1.5, 1e6, busy=True)
    monkeypatch.setattr(candidates, "_measure", lambda *_: [busy])
    for limits, named in (((), False), (("--p95-ms", 9), True), (("--p95-ms", 8), True)):
        caplog.clear()
        notice.cache_clear()
        assert "no candidate meets the budget" in refused(fit("--max-mb", "0.0001", *limits))
        assert ("other work lengthened the times" in caplog.text) == named


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--student", "layers=2"], "--student: fit tries students of several sizes"),
        (["--p95-ms", "soon"], "p95"),
        (["--also", "no/such"], "no/such"),
        (["--min-accuracy", "86"], "min-accuracy"),
        (["--method", "magic"], "--method = 'magic': choose one of meta_kd"),
        (["--max-length", "100000"], "--max-length"),
    ],
)
def test_bad_flags_are_refused(fit: Command, flags: list[str], message: str) -> None:
    assert message in refused(fit(*flags))


def test_what_would_fail_after_training_is_refused_before_anything_is_measured(fit: Command, tmp_path: Path) -> None:
    """No dev; dev has rows of books alone; and a folder of somebody else lies where a domain's model would."""
    data, output = tmp_path / "data", tmp_path / "fit"
    for split in ("train", "test"):
        write_rows(data / f"{split}.jsonl", [as_row(replace(e, id="")) for e in toy_examples(40, 0, split)])
    assert "no dev split to choose on" in refused(fit(data=data))
    rows = [as_row(e) for e in toy_examples(40, 1, "dev")]
    write_rows(data / "dev.jsonl", [row for row in rows if row["domain"] == "books"])
    assert "dev has no rows of kitchen" in refused(fit(data=data))
    assert not output.exists()
    theirs = write_rows(output / "books" / "mine.txt", [])
    assert "not from `metakd fit`; choose another --output" in refused(fit())
    assert [*output.rglob("*.*")] == [theirs]


@pytest.mark.slow
def test_the_largest_come_first_whatever_their_names(toy_data: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A checkpoint of one layer comes after students of four, three and two layers cut from the base."""
    small, settings = checkpoint(num_hidden_layers=1), Settings(base=str(checkpoint()), max_length=16)
    measured = measure_candidates(load_dataset(toy_data), settings, tmp_path / "work", [str(small)])
    order = list(dict.fromkeys(candidate.student for candidate in measured))
    assert order[:3] == ["layers=4", "layers=3", "layers=2"]
    assert set(order[3:]) == {"layers=1", str(small)}
