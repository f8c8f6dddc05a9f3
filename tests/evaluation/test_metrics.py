"""Scores by hand and beside scikit-learn, intervals at their limits, latency, the TF-IDF rival."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from conftest import toy_examples
from metakd.data.schema import Example
from metakd.evaluation.baselines import TfidfBaseline
from metakd.evaluation.latency import latency
from metakd.evaluation.metrics import Predictions, accuracy, accuracy_of_kept, confusion, macro_f1, score
from metakd.evaluation.probe import domain_probe


def predictions(truth: list[int], predicted: list[int]) -> Predictions:
    return Predictions(np.array(truth), np.array(predicted), np.ones(len(truth)))


def test_accuracy_and_macro_f1_by_hand() -> None:
    """Truth 0 0 1 1, said 0 1 1 1: accuracy 3/4; F1 of 0 is 2/3, of 1 is 4/5; their mean 11/15."""
    matrix = confusion(predictions([0, 0, 1, 1], [0, 1, 1, 1]), 2)
    assert matrix.tolist() == [[1, 1], [0, 2]]
    assert accuracy(matrix) == 0.75
    assert macro_f1(matrix) == pytest.approx(11 / 15)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=50))
def test_scores_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = (list(column) for column in zip(*pairs, strict=True))
    matrix = confusion(predictions(truth, predicted), 4)
    assert accuracy(matrix) == pytest.approx(accuracy_score(truth, predicted))
    assert macro_f1(matrix) == pytest.approx(f1_score(truth, predicted, average="macro"))


def test_average_is_the_plain_mean_of_domains() -> None:
    """Domain a: 1 of 1, domain b: 0 of 3: the mean is ½, not ¼."""
    found = score({"a": predictions([0], [0]), "b": predictions([0, 1, 1], [1, 0, 0])}, {"a", "b"}, 2, 100, 0)
    assert found["average"]["accuracy"] == 0.5
    assert found["domains"]["b"]["accuracy"] == 0
    assert found["domains"]["b"]["examples"] == 3


def test_intervals_hold_the_score_and_shrink_with_examples() -> None:
    """90 % right: the interval of 1,000 examples is near 0.9 ± 1.96·√(0.09/1000) = 0.0186."""
    truth = [0] * 1000
    large = score({"a": predictions(truth, [0] * 900 + [1] * 100)}, {"a"}, 2, 2000, 0)["domains"]["a"]
    low, high = large["accuracy_interval"]
    assert (low, high) == pytest.approx((0.8814, 0.9186), abs=0.003)
    small = score({"a": predictions(truth[:20], [0] * 18 + [1] * 2)}, {"a"}, 2, 2000, 0)["domains"]["a"]
    assert small["accuracy_interval"][1] - small["accuracy_interval"][0] > 3 * (high - low)


def test_intervals_repeat_with_the_seed() -> None:
    data = {"a": predictions([0, 1, 0, 1], [0, 1, 1, 1])}
    assert score(data, {"a"}, 2, 200, 3) == score(data, {"a"}, 2, 200, 3)


def test_latency_is_in_milliseconds() -> None:
    found = latency(lambda _: time.sleep(0.002), toy_examples(3, 0, "t"))
    assert 2 <= found["median"] <= found["p95"] < 100


def test_the_probe_finds_a_domain_that_is_there_and_none_that_is_not() -> None:
    """Two clouds far apart are told apart; one cloud under two names is not."""
    rng = np.random.default_rng(0)
    domains = np.arange(200) % 2
    cloud = rng.normal(size=(200, 3))
    assert domain_probe(cloud + 9 * domains[:, None], domains) == 1
    found = domain_probe(cloud, domains)
    assert found is not None
    assert 0.3 < found < 0.7
    assert domain_probe(cloud, np.zeros(200, dtype=int)) is None


def test_tfidf_learns_words_and_survives_one_class_and_odd_characters() -> None:
    baseline = TfidfBaseline(toy_examples(80, 0, "train"))
    test = toy_examples(40, 1, "test")
    right = sum(said == e.label for said, e in zip(baseline.predict(test), test, strict=True))
    assert right >= 36
    assert baseline.size()["parameters"] > 0
    lone = TfidfBaseline([Example("1", "!", None, "a", "x"), Example("2", "好", None, "a", "x")])
    assert lone.predict(test[:2]) == ["a", "a"]


def test_tfidf_reads_both_texts_of_a_pair() -> None:
    rows = [Example(str(i), "same", ("yes", "no")[i % 2], ("a", "b")[i % 2], "x") for i in range(20)]
    assert TfidfBaseline(rows).predict(rows[:2]) == ["a", "b"]


def test_accuracy_of_kept_rows_by_hand() -> None:
    """books: rows 1 and 3 kept, one right: 0.5; films: nothing kept, left out; kitchen: its one row right: 1."""
    found = {"books": predictions([0, 1, 1], [0, 1, 0]), "films": predictions([0], [0])}
    found["kitchen"] = predictions([1], [1])
    kept = {"books": np.array([True, False, True]), "films": np.array([False]), "kitchen": np.array([True])}
    assert accuracy_of_kept(found, kept) == 0.75
    assert accuracy_of_kept(found, {d: np.zeros_like(rows) for d, rows in kept.items()}) is None


@pytest.mark.parametrize("taken", [0, 90, 1_000_000])
def test_times_that_other_work_has_lengthened_are_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, taken: int
) -> None:
    counts = iter([5, 5 + taken])
    monkeypatch.setattr("metakd.evaluation.latency._times_put_aside", lambda: next(counts))
    latency(lambda _: None, toy_examples(8, 0, "t"))
    assert ("latencies are too long" in caplog.text) is (taken > 100)
