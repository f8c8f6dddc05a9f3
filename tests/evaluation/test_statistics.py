"""Intervals, paired tests and verdicts over seeds, worked by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from metakd.evaluation.statistics import Estimate, compare, difference, estimate, holm, summary, verdict
from metakd.experiments.tables import markdown


def test_one_seed_and_domain_is_the_t_interval_of_a_mean() -> None:
    """Values 1, 1, 0, 0, 1: mean 0.6, standard error sqrt(0.3 / 5), 4 degrees of freedom."""
    values = np.array([[1, 1, 0, 0, 1]])
    low, high = stats.t.interval(0.95, 4, loc=0.6, scale=math.sqrt(0.3 / 5))
    expected = Estimate(0.6, low, high, stats.ttest_1samp(values[0], 0).pvalue, 0.0)
    assert estimate({"books": values}) == pytest.approx(expected)


def test_variances_of_examples_and_of_seeds_add_up() -> None:
    """Two seeds, two domains of two examples.

    books: seeds (1, 1) and (1, 0); kitchen: (1, 0) and (0, 0). Seeds: (1 + 1/2)/2 = 0.75 and (1/2 + 0)/2 = 0.25:
    mean 0.5, variance 0.125, over 2 seeds 0.0625. Examples over seeds: books (1, 0.5), kitchen (0.5, 0): variance
    0.125 each, below the least of 1/2; over 2 examples and 2² domains 0.0625 each. In all 0.1875; degrees of freedom
    0.1875² / (3 · 0.0625²) = 3.
    """
    reach = stats.t.ppf(0.975, 3) * math.sqrt(0.1875)
    p = 2 * stats.t.sf(0.5 / math.sqrt(0.1875), 3)
    values = {"books": np.array([[1, 1], [1, 0]]), "kitchen": np.array([[1, 0], [0, 0]])}
    assert estimate(values) == pytest.approx(Estimate(0.5, 0.5 - reach, 0.5 + reach, p, math.sqrt(0.125)))


def test_equal_models_differ_by_nothing_and_four_examples_prove_little() -> None:
    """Four rows, all right against all wrong: a standard error of sqrt(1/4 / 4) = 1/4, 3 degrees of freedom."""
    rights = {"books": np.array([[1, 0, 1]])}
    same = difference(rights, rights)
    assert (same.mean, same.p) == (0, 1)
    assert same.low < 0 < same.high
    four = difference({"books": np.ones((1, 4))}, {"books": np.zeros((1, 4))})
    assert four.p == pytest.approx(2 * stats.t.sf(4, 3))
    assert four.low < 1 < four.high
    assert summary({"books": np.ones((1, 4))})["interval"][1] == 1


def test_pairing_finds_what_lies_within_either_interval() -> None:
    """A model that is right wherever the other is, and on 10 more of 400, is better, though their intervals overlap."""
    weak, strong = ({"books": (np.arange(400) < rights).astype(int)[None]} for rights in (200, 210))
    assert difference(strong, weak).low > 0
    assert estimate(weak).high > estimate(strong).low


@pytest.mark.parametrize(
    ("seeds", "effect", "rows", "least", "most"),
    [(1, 0.0, 300, 0.03, 0.07), (5, 0.01, 300, 0.03, 0.07), (3, 0.02, 700, 0.05, 0.09), (2, 0.02, 700, 0.08, 0.13)],
)
def test_intervals_hold_what_they_promise(seeds: int, effect: float, rows: int, least: float, most: float) -> None:
    """Of 1,000 draws with effects of examples and of seeds around 0, intervals of 95 % miss about 50.

    With two or three seeds that differ much they miss more (106 and 74 here), as the docs explain.
    """
    draw = np.random.default_rng(0)
    missed = 0
    for _ in range(1000):
        common = draw.normal(0, effect, (seeds, 1))
        values = {d: common + draw.normal(0, 0.3, (1, rows)) + draw.normal(0, 0.2, (seeds, rows)) for d in "abcd"}
        interval = estimate(values)
        missed += not interval.low <= 0 <= interval.high
    assert least <= missed / 1000 <= most


def test_holm_by_hand() -> None:
    """0.01 · 3, then 0.02 · 2 = 0.04, then 0.9; a later one is never below an earlier one; never above 1."""
    for ps, adjusted in (([0.9, 0.01, 0.02], [0.9, 0.03, 0.04]), ([0.02, 0.021], [0.04] * 2), ([0.6, 0.7], [1, 1])):
        assert holm(ps) == pytest.approx(adjusted)
    assert holm([]) == []


def test_the_verdict_names_what_is_significant_and_what_is_not() -> None:
    right = np.ones((2, 200), dtype=int)
    wrong, nearly = right.copy(), right.copy()
    wrong[:, :40] = nearly[0, 0] = 0
    results = compare("ours", {"ours": {"books": nearly}, "weak": {"books": wrong}, "strong": {"books": right}})
    start = "Statistically significant (Holm-adjusted p < 0.05): ours is better than weak (+19.8"
    assert results["verdict"].startswith(start)
    assert "Not significant: a difference from strong (-0.2" in results["verdict"]
    assert results["against"]["weak"]["p_holm"] == pytest.approx(2 * results["against"]["weak"]["p"])
    worse = {"mean": -0.1, "interval": [-0.2, -0.1], "significant": True}
    assert "o is worse than strong" in verdict("o", {"strong": worse})
    nothing = "No difference of o from the others is statistically significant (Holm-adjusted p < 0.05)."
    assert verdict("o", {"even": worse | {"significant": False}}) == nothing
    assert verdict("o", {}) == "o alone, so that nothing is compared."


EXPERIMENT = {"data": "reviews", "seeds": [0], "split": "dev", "checks": {}, "examples": {"books": 4}}


def test_the_table_has_a_row_a_model() -> None:
    right = {"books": np.array([[1, 1, 0, 1]]), "kitchen": np.array([[1, 0, 0, 1]])}
    wrong = {"books": np.array([[0, 1, 0, 1]]), "kitchen": np.array([[0, 0, 0, 1]])}
    results = EXPERIMENT | {"teachers": {}, "examples": {"books": 4, "kitchen": 4}}
    rows = markdown(results | compare("ours", {"ours": right, "other": wrong})).splitlines()
    assert rows[2].startswith("| ours | 75.0 | 50.0 | 62.5 |")
    assert rows[3].startswith("| other | 50.0 | 25.0 | 37.5 |")
    assert "| +25.0, " in rows[3]
    assert "books 4, kitchen 4" in rows[-1]


def test_of_trials_the_best_of_each_variant_is_bold_and_no_difference_is_tested() -> None:
    rights = {"shared, 2 at 0.1": [1, 0, 1, 0], "shared, 5 at 0.1": [1, 1, 1, 0], "hrkd, 2 at 0.1": [1, 1, 1, 1]}
    best = {"shared": ["shared, 5 at 0.1", "shared, 2 at 0.1"], "hrkd": ["hrkd, 2 at 0.1"]}
    results = EXPERIMENT | {
        "teachers": {"meta teacher": summary({"books": np.array([[1, 1, 0, 0]])})},
        "students": {name: summary({"books": np.array([values])}) for name, values in rights.items()},
        "best": {name: {"chosen": trials[0], "candidates": sorted(trials)} for name, trials in best.items()},
    }
    shown = markdown(results)
    _, _, *rows, _, caption = shown.strip().splitlines()
    assert rows == ["| shared | 2 at 0.1: 50.0 | **5 at 0.1: 75.0** |", "| hrkd | **2 at 0.1: 100.0** |"]
    assert caption.endswith("Teachers: meta teacher 50.0.")
    assert "significant" not in shown
