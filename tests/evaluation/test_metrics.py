"""Scores by hand and beside scikit-learn, intervals at their limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from metakd.evaluation.metrics import Predictions, accuracy, accuracy_of_kept, macro_f1, macro_f1_interval, score
from metakd.evaluation.statistics import Z, accuracy_interval, wilson


def predictions(truth: list[int], predicted: list[int]) -> Predictions:
    return Predictions(np.array(truth), np.array(predicted), np.ones(len(truth)))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=50))
def test_scores_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = zip(*pairs, strict=True)
    matrix = confusion_matrix(truth, predicted, labels=range(4))
    assert accuracy(matrix) == pytest.approx(accuracy_score(truth, predicted))
    assert macro_f1(matrix) == pytest.approx(f1_score(truth, predicted, average="macro"))


def test_scores_and_their_plain_mean_over_domains_by_hand() -> None:
    """a: truth 0 0 1 1, predicted 0 1 1 1: accuracy 3/4; F1 of 0 is 2/3, of 1 is 4/5, their mean 11/15.

    b: 0 of 1, and neither class has any F1. The means over the domains are 3/8 and 11/30, and none by examples.
    """
    domains = {"a": predictions([0, 0, 1, 1], [0, 1, 1, 1]), "b": predictions([0], [1])}
    scores = score(domains, {"a", "b"}, 2)
    assert (scores["domains"]["a"]["accuracy"], scores["domains"]["a"]["macro_f1"]) == pytest.approx((3 / 4, 11 / 15))
    assert (scores["average"]["accuracy"], scores["average"]["macro_f1"]) == pytest.approx((3 / 8, 11 / 30))
    assert scores["domains"]["b"]["examples"] == 1


def test_intervals_by_hand() -> None:
    """36 of 40 right: Wilson's centre (0.9 + 1.96²/80)/(1 + 1.96²/40) = 0.8649, and 0.0955 to either side.

    With 18 of 20 of both classes right, macro-F1 is as uncertain as that share. Where all 50 are right, the interval
    begins at 50/(50 + 1.96²), also if they have one class only.
    """
    assert wilson(0.98, 50) == pytest.approx([0.8950, 0.9990], abs=1e-4)  # 1 - 0.0513/50, of a Poisson distribution
    even = score({"a": predictions([0] * 20 + [1] * 20, [0] * 18 + [1] * 20 + [0] * 2)}, {"a"}, 2)["average"]
    assert even["accuracy_interval"] == pytest.approx([0.7695, 0.9604], abs=1e-4)
    assert even["macro_f1_interval"] == pytest.approx(even["accuracy_interval"], abs=0.001)
    for truth in ([0] * 50, [0, 1] * 25):
        perfect = score({"a": predictions(truth, truth)}, {"a"}, 2)["average"]
        assert perfect["accuracy_interval"] == pytest.approx([50 / (50 + Z**2), 1])
        assert perfect["macro_f1_interval"] == pytest.approx(perfect["accuracy_interval"], abs=0.002)


def test_intervals_of_accuracy_cover_what_they_promise() -> None:
    """Of the exact binomial distribution: on average 94 to 96 %, nowhere under 93 %."""
    coverage = []
    for count in (50, 100, 200, 500, 1000, 2000):
        low, high = zip(*(accuracy_interval([right / count], [count]) for right in range(count + 1)), strict=True)
        for p in (0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99):
            hits = (np.array(low) <= p) & (p <= np.array(high))
            coverage.append(binom.pmf(range(count + 1), count, p)[hits].sum())
    assert 0.94 < np.mean(coverage) < 0.96
    assert min(coverage) > 0.93


@pytest.mark.parametrize("domains", [2, 4, 10])
@pytest.mark.parametrize("accuracies", [(0.6, 0.99), (0.9, 0.9), (0.99, 0.99)])
def test_intervals_of_averages_cover_what_they_promise(domains: int, accuracies: tuple[float, float]) -> None:
    """Of 1,000 draws, with domains as unlike in size and accuracy as they may be: at least 93 %."""
    draw, hits = np.random.default_rng(0), 0
    counts = np.where(np.arange(domains) % 2, 50, 2000)
    p = np.where(np.arange(domains) % 2, *accuracies)
    for right in draw.binomial(counts, p, (1000, domains)):
        low, high = accuracy_interval(right / counts, counts)
        hits += low <= p.mean() <= high
    assert hits / 1000 >= 0.93


def test_intervals_of_macro_f1_cover_what_they_promise() -> None:
    """Three unequal classes, right with 0.9, 300 rows: 95 % of 1,000 draws, give or take their chance."""
    truth = np.diag([0.5, 0.3, 0.2]) @ np.array([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]])
    drawn = np.random.default_rng(0).multinomial(300, truth.ravel(), 1000).reshape(1000, 3, 3)
    intervals = np.array([macro_f1_interval([matrix]) for matrix in drawn])
    hits = (intervals[:, 0] <= macro_f1(truth)) & (macro_f1(truth) <= intervals[:, 1])
    assert 0.93 <= hits.mean() <= 0.97


@given(st.lists(st.tuples(*[st.booleans()] * 6), min_size=1, max_size=30))
def test_scores_of_several_labels_are_those_of_scikit_learn(rows: list[tuple[bool, ...]]) -> None:
    truth, predicted = np.array(rows)[:, :3], np.array(rows)[:, 3:]
    scores = score({"a": Predictions(truth, predicted, np.ones(len(rows)))}, {"a"}, 3)["average"]
    occurs = (truth | predicted).any(0)
    assert scores["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    if occurs.any():  # of labels that occur nowhere, scikit-learn's F1 is 0
        assert scores["micro_f1"] == pytest.approx(f1_score(truth, predicted, average="micro"))
        macro = [f1_score(truth[:, m], predicted[:, m]) for m in np.flatnonzero(occurs)]
        assert scores["macro_f1"] == pytest.approx(np.mean(macro))
    for name in ("accuracy", "micro_f1", "macro_f1"):
        low, high = scores[f"{name}_interval"]
        assert 0 <= low <= scores[name] + 1e-9
        assert scores[name] - 1e-9 <= high <= 1


def test_intervals_of_micro_f1_cover_what_they_promise() -> None:
    """Texts differ in how hard they are, so that their labels are wrong together: 1,000 draws of 150 texts."""

    def draw(count: int) -> dict[str, Predictions]:
        truth, easy = rng.random((count, 20)) < 0.08, rng.beta(2.4, 0.6, (count, 1))
        answers = np.where(truth, rng.random((count, 20)) < easy, rng.random((count, 20)) < 0.08 * (1 - easy))
        return {"a": Predictions(truth, answers, np.ones(count))}

    rng = np.random.default_rng(0)
    exact = score(draw(400_000), {"a"}, 20)["average"]["micro_f1"]
    intervals = np.array([score(draw(150), {"a"}, 20)["average"]["micro_f1_interval"] for _ in range(1000)])
    hits = (intervals[:, 0] <= exact) & (exact <= intervals[:, 1])
    assert 0.93 <= hits.mean() <= 0.97


def test_accuracy_of_kept_rows_by_hand() -> None:
    """books: rows 1 and 3 kept, one right: 0.5; films: nothing kept, left out; kitchen: its one row right: 1."""
    domains = {"books": predictions([0, 1, 1], [0, 1, 0]), "films": predictions([0], [0])}
    domains["kitchen"] = predictions([1], [1])
    kept = {"books": np.array([True, False, True]), "films": np.array([False]), "kitchen": np.array([True])}
    assert accuracy_of_kept(domains, kept) == 0.75
    assert accuracy_of_kept(domains, {d: np.zeros_like(rows) for d, rows in kept.items()}) is None
