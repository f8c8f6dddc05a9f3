"""Temperatures: what they are of exact and of hand-made probabilities, who gets which, and where they are folded in."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from conftest import (
    Checkpoint,
    Command,
    encoded,
    passed,
    read_json,
    read_rows,
    refused,
    reopen,
    toy_examples,
    write_toy,
)
from metakd import Classifier, InputError
from metakd.data.schema import Example
from metakd.data.tokenization import Collator
from metakd.evaluation import calibration
from metakd.evaluation.calibration import (
    FOLDS,
    SPREAD,
    Answers,
    calibrate,
    cross_fitted,
    fit_temperature,
    fit_temperatures,
    quality,
)
from metakd.evaluation.metrics import Floats, Ints
from metakd.inference.calibration import (
    CALIBRATION_FILE,
    Calibration,
    divide_logits,
    load_calibration,
    write_calibration,
)
from metakd.inference.long_texts import Answers as AnswersOfTexts
from metakd.inference.torch_backend import TorchModel
from metakd.models.encoder import forward
from metakd.models.loading import load_encoder
from metakd.pipeline.evaluate import evaluate
from metakd.runs.folders import RESULTS_FILE
from metakd.utils.artifacts import write_json


def drawn(count: int, classes: int = 3, seed: int = 0) -> tuple[Floats, Ints]:
    """z, and classes that were drawn from softmax(z)."""
    rng = np.random.default_rng(seed)
    z = log_softmax(rng.normal(0, 2, (count, classes)), axis=-1)
    return z, (softmax(z, axis=-1).cumsum(1) < rng.random((count, 1))).sum(1)


@pytest.mark.parametrize("temperature", [0.5, 1, 3])
def test_the_temperature_of_exact_probabilities_is_found(temperature: float) -> None:
    z, truth = drawn(40_000)
    assert fit_temperature(temperature * z, truth) == pytest.approx(temperature, rel=0.02)


def test_two_texts_by_hand() -> None:
    """Odds of 9 to 1, right in three of four texts, so they should be 3 to 1: T = log 9 / log 3 = 2, less the prior."""
    z = np.log([[0.9, 0.1]] * 4000)
    truth = np.array([0, 0, 0, 1] * 1000)
    assert fit_temperature(z, truth) == pytest.approx(2, abs=0.01)


def test_several_labels_are_questions_by_themselves() -> None:
    """Twice as sure as right of each label: T = 2, whichever of N · M answers stand in which text."""
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, (8_000, 5))
    truth = (rng.random(z.shape) < 1 / (1 + np.exp(-z))).astype(int)
    log_p = np.stack([-np.logaddexp(0, 2 * z), -np.logaddexp(0, -2 * z)], axis=-1)
    assert fit_temperature(log_p, truth) == pytest.approx(2, rel=0.03)
    answers = {"a": Answers(log_p, truth), "b": Answers(log_p[:100, :3], truth[:100, :3])}
    scaled = cross_fitted(answers, 0)
    assert scaled["b"].shape == (100, 3, 2)
    pooled = Answers(scaled["a"], truth).questions
    assert quality(*pooled, 0)["calibration_error"] < 0.01 < quality(*answers["a"].questions, 0)["calibration_error"]


def test_a_sure_mistake_is_worth_no_more_than_float32_can_say() -> None:
    """A probability that is rounded to 1 may have any logit from 17 on; 16 is taken, and -16 for 0."""

    class Sure:
        labels, several_labels = ["a", "b"], True

        def answers(self, examples: Any) -> Any:
            return AnswersOfTexts(np.array([[1, 0]], np.float32), {})

    example = Example("1", "x", None, "b", "books", labels=("b",))
    log_p, truth = calibration._answers(cast(Any, Sure()), [example])
    np.testing.assert_allclose(log_p[0, 0], [-16, 0], atol=1e-6)
    np.testing.assert_allclose(log_p[0, 1], [0, -16], atol=1e-6)
    assert truth.tolist() == [[0, 1]]


def test_models_of_other_classes_are_fitted_together() -> None:
    """What is no class of a model counts for nothing."""
    z, truth = drawn(500)
    padded = np.pad(z, ((0, 0), (0, 2)), constant_values=-np.inf)
    assert fit_temperature(2 * padded, truth) == fit_temperature(2 * z, truth)
    assert quality(padded, truth, 0) == quality(z, truth, 0)


def test_a_model_that_is_always_right_stays_finite() -> None:
    """The share of texts that might have had another class bounds T: with N = 98, p = 0.995 of two classes."""
    z, truth = np.log([[0.9, 0.1]] * 98), np.zeros(98, int)
    t = fit_temperature(z, truth)
    assert softmax(z[0] / t)[0] == pytest.approx(0.995, abs=1e-3)


def test_the_fewer_texts_the_nearer_to_the_temperature_of_all() -> None:
    z, truth = drawn(4020)
    parts = {"exact": z[:2000], "twice": 2 * z[2000:4000], "few": 4 * z[4000:]}
    answers = {d: Answers(p, t) for (d, p), t in zip(parts.items(), np.split(truth, [2000, 4000]), strict=True)}
    temperatures = fit_temperatures(answers, [*answers, "none"])
    whole = [np.concatenate(columns) for columns in zip(*answers.values(), strict=True)]
    assert temperatures["none"] == fit_temperature(*whole) == pytest.approx(1.5, abs=0.1)
    assert temperatures["exact"] == pytest.approx(1, abs=0.06)
    assert temperatures["twice"] == pytest.approx(2, abs=0.12)
    assert fit_temperature(*answers["few"]) > 3
    assert temperatures["none"] < temperatures["few"] < 2.2


def test_a_domain_alone_has_the_temperature_of_its_texts() -> None:
    z, truth = drawn(200)
    answers = Answers(2 * z, truth)
    assert fit_temperatures({"a": answers}, ["a"])["a"] == pytest.approx(fit_temperature(*answers), rel=1e-3)


def test_the_spread_is_a_standard_deviation() -> None:
    """Where texts say nothing of T, as at odds of 1 to 1, T is that of all; else it moves by SPREAD² · the slope."""
    even, truth = np.log([[0.5, 0.5]] * 10), np.zeros(10, int)
    assert fit_temperature(even, truth, 1.7) == pytest.approx(1.7, rel=1e-3)
    z = np.log([[0.51, 0.49]] * 10)
    logit, share = z[0, 0] - z[0, 1], 1 / 12
    p = 1 / (1 + np.exp(-logit))
    slope = 10 * logit * ((1 - share) * (1 - p) + share * (0.5 - p))  # of the loss of all ten, by log T, at T = 1
    assert np.log(fit_temperature(z, truth, 1.0)) == pytest.approx(-(SPREAD**2) * slope, rel=0.05)


def test_each_text_is_scaled_by_others_alone() -> None:
    """Another class of one text changes the scale of the texts of other parts, and of none in its part."""
    z, truth = drawn(300)
    before = cross_fitted({"a": Answers(z, truth)}, 0)["a"]
    other = truth.copy()
    other[7] = (truth[7] + 1) % 3
    after = cross_fitted({"a": Answers(z, other)}, 0)["a"]
    same = (after == before).all(1)
    assert same[7]
    assert same.sum() == 300 // FOLDS


def test_a_domain_is_judged_by_a_temperature_of_its_domain() -> None:
    z, truth = drawn(2000)
    answers = {"a": Answers(3 * z[:500], truth[:500]), "b": Answers(z[500:], truth[500:])}
    temperatures = fit_temperatures(answers, answers)
    assert temperatures["a"] > 2 > 1.1 > temperatures["b"]
    judged = answers["a"].log_p / cross_fitted(answers, 0)["a"]
    np.testing.assert_allclose(judged, temperatures["a"], rtol=0.3)


def test_domains_of_few_texts_are_judged_by_others(recwarn: pytest.WarningsRecorder) -> None:
    """Of four texts each: all parts have texts, and T is what exact probabilities want."""
    z, truth = drawn(1200)
    answers = {str(i): Answers(3 * z[i : i + 4], truth[i : i + 4]) for i in range(0, 1200, 4)}
    scaled = np.concatenate([*cross_fitted(answers, 0).values()])
    np.testing.assert_allclose(scaled, z, rtol=0.15)
    assert not [*recwarn]


def test_what_exact_probabilities_look_like() -> None:
    """Chance alone makes an ECE; the debiased error of exact ones is near 0, and of others it is what they are off."""
    z, truth = drawn(20_000, classes=2)
    exact = quality(z, truth, 0)
    assert exact["calibration_error"] < 0.01
    assert exact["ece"] == pytest.approx(exact["ece_of_chance"], abs=0.004)
    small = [quality(*drawn(720, 2, seed), 0) for seed in range(40)]
    assert np.mean([each["ece"] for each in small]) == pytest.approx(0.033, abs=0.006)
    assert np.mean([each["ece_of_chance"] for each in small]) == pytest.approx(0.033, abs=0.006)
    off = quality(np.log([[0.9, 0.1]] * 1000), np.array([0, 0, 0, 1] * 250), 0)
    assert off["ece"] == pytest.approx(0.15)
    assert off["calibration_error"] == pytest.approx(0.15, abs=0.01)
    assert off["log_likelihood_loss"] == pytest.approx(-(0.75 * np.log(0.9) + 0.25 * np.log(0.1)), abs=1e-4)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra", "albert", "mpnet"])
def test_logits_are_divided_in_the_last_layer(kind: str, checkpoint: Checkpoint) -> None:
    folder = checkpoint(kind)
    network, batch = load_encoder(folder, ["a", "b", "c"]).eval(), Collator(0)(encoded(folder, 8, labels=[0, 1] * 4))
    with torch.no_grad():
        before = forward(network, batch).logits
        divide_logits(network, 2.5)
        torch.testing.assert_close(forward(network, batch).logits, before / 2.5)


@pytest.mark.slow
def test_a_run_knows_its_temperatures(
    run_copy: Path, metakd: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In results, in each student's folder, in predictions; again the same. Its dev is small, less what is in train."""
    monkeypatch.setattr(calibration, "FEWEST", 2)
    evaluate(reopen(run_copy))
    found = read_json(run_copy / "results.json")["calibration"]
    folders = {domain: run_copy / "students" / domain for domain in ("books", "kitchen")}
    assert {domain: load_calibration(folder).temperature for domain, folder in folders.items()} == found["temperatures"]
    dev = reopen(run_copy).data.splits["dev"]
    learnt = {e.text for e in reopen(run_copy).data.train}
    dev = [e for e in dev if e.text not in learnt]
    assert found["texts"] == len(dev)
    again = calibrate(folders, dev, lambda f: TorchModel.load(f, calibrated=False), 0)
    assert again["temperatures"] == found["temperatures"]
    for domain, folder in folders.items():
        t, texts = found["temperatures"][domain], toy_examples(12, 5, "n")
        raw = TorchModel.load(folder, calibrated=False).answers(texts).probabilities
        p = Classifier.from_pretrained(folder).predict_proba([e.text for e in texts])
        np.testing.assert_allclose(p, softmax(np.log(raw) / t, axis=-1), atol=1e-5)
    predictions = (run_copy / "predictions.jsonl").read_bytes()
    evaluate(reopen(run_copy))
    assert (run_copy / "predictions.jsonl").read_bytes() == predictions
    assert read_json(run_copy / "results.json")["calibration"] == found
    passed(metakd("export", run_copy, "--output", tmp_path / "onnx", "--force"))
    card = (tmp_path / "onnx" / "books" / "README.md").read_text()
    assert ("Its probabilities are calibrated" in card) == (found["temperatures"]["books"] != 1)


@pytest.mark.slow
def test_a_temperature_is_in_all_that_is_made_of_a_student(run_copy: Path, metakd: Command, tmp_path: Path) -> None:
    """In predictions, in exports and on their card."""
    folder, texts = run_copy / "students" / "books", [e.text for e in toy_examples(12, 5, "n")]
    write_calibration(folder, Calibration(1))
    raw = Classifier.from_pretrained(folder).predict_proba(texts)
    write_calibration(folder, Calibration(2))
    export = ("export", run_copy, "--output", tmp_path / "onnx")
    assert "not scored, which decides how sure students are" in refused(metakd(*export))
    quality = {"log_likelihood_loss": 0.5, "calibration_error": 0.1, "ece": 0.12, "ece_of_chance": 0.02}
    figures = {"temperatures": {"books": 2.0}, "texts": 60, "before": quality, "after": quality}
    results = read_json(run_copy / RESULTS_FILE)
    for damaged in ({"temperatures": {"books": 2.0}}, [1]):
        write_json(run_copy / RESULTS_FILE, results | {"calibration": damaged})
        assert "results.json is damaged; run `metakd evaluate" in refused(metakd(*export))
    write_json(run_copy / RESULTS_FILE, results | {"calibration": figures})
    expected = softmax(np.log(raw) / 2, axis=-1)
    np.testing.assert_allclose(Classifier.from_pretrained(folder).predict_proba(texts), expected, atol=1e-5)
    passed(metakd(*export, "--force"))
    np.testing.assert_allclose(
        Classifier.from_pretrained(tmp_path / "onnx" / "books").predict_proba(texts), expected, atol=1e-4
    )
    assert "logits were divided by 2.00" in (tmp_path / "onnx" / "books" / "README.md").read_text()


@pytest.mark.slow
def test_without_dev_nothing_is_calibrated(
    base: Path, metakd: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_toy(tmp_path / "data", train=32, test=8)
    quick = ("--max-length", 16, "--student", "layers=1", "--teacher-epochs", 1, "--shared-epochs", 1, "--no-baseline")
    flags = ("--data", data, "--base", base, "--output", tmp_path / "run", *quick, "--allow-weak-teacher")
    passed(metakd("run", *flags))
    needed = "not calibrated: that takes 50 texts of dev that are in no other split"
    assert f"{needed}, with labels of their domains' students" in " ".join(caplog.text.split())
    assert read_json(tmp_path / "run" / "results.json")["calibration"] == {}
    assert not [*tmp_path.glob(f"run/**/{CALIBRATION_FILE}")]
    assert read_rows(tmp_path / "run" / "predictions.jsonl")


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", '{"temprature": 2}', '{"temperature": "2"}', '{"temperature": 0}', '{"temperature": NaN}'],
)
def test_a_damaged_temperature_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / CALIBRATION_FILE).write_text(content)
    with pytest.raises(InputError, match=r"calibration.json is damaged; delete it, and score its run again with"):
        load_calibration(tmp_path)
    write_calibration(tmp_path, Calibration(1))
    assert load_calibration(tmp_path) == Calibration()
