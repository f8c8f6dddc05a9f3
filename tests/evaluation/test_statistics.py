"""Intervals, paired tests and verdicts over seeds, worked by hand."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from metakd.evaluation.statistics import (
    Uncertainty,
    accuracy_interval,
    compare,
    difference,
    differences,
    estimate,
    holm,
    summary,
    verdict,
)
from metakd.experiments.tables import markdown
from metakd.utils.errors import InputError


def test_one_seed_and_domain_is_the_t_interval_of_a_mean() -> None:
    """Values 1, 1, 0, 0, 1: mean 0.6, standard error sqrt(0.3 / 5), 4 degrees of freedom. One seed has no p value."""
    values = np.array([[1, 1, 0, 0, 1]])
    interval = stats.t.interval(0.95, 4, loc=0.6, scale=math.sqrt(0.3 / 5))
    result = estimate({"books": values})
    assert result.interval == pytest.approx(list(interval))
    assert (result.mean, result.p, result.deviation) == (0.6, None, 0)


def test_examples_alone_or_seeds_alone_have_the_t_distribution() -> None:
    """Variance 0.04 over seeds with 2 degrees of freedom, or over examples: the p value at 0.6 is that of t = 3."""
    assert Uncertainty(0.04, 7).p(0.6) == pytest.approx(2 * stats.t.sf(3, 7))
    assert Uncertainty(1e-9, 1e6, 0.04, 2).p(0.6) == pytest.approx(2 * stats.t.sf(3, 2), rel=0.01)
    assert Uncertainty(0.04, 7).reach() == pytest.approx(0.2 * stats.t.ppf(0.975, 7))
    both = Uncertainty(0.04, 1e6, 0.04, 2)
    assert both.p(both.reach()) == pytest.approx(0.05)
    assert 0.2 * math.sqrt(2) * 1.96 < both.reach() < 0.2 * (1.96 + stats.t.ppf(0.975, 2))


def test_variances_of_examples_and_of_seeds_by_hand() -> None:
    """Three seeds of two domains of two examples, of which nothing is random in an example and seed together.

    books: (1, 1), (1, 1), (1, 1); kitchen: (1, 1), (0, 0), (0, 0). Seeds: 1, 1/2, 1/2, mean 2/3, variance 1/12. Over
    examples the least counts: 1/2 in each domain, over 2 examples and 2² domains 1/16, in all 1/8 with 2 degrees.
    """
    values = {"books": np.ones((3, 2)), "kitchen": np.array([[1, 1], [0, 0], [0, 0]])}
    result, expected = estimate(values), Uncertainty(1 / 8, 2, 1 / 36, 2)
    assert (result.mean, result.deviation) == pytest.approx((2 / 3, math.sqrt(1 / 12)))
    assert result.p == pytest.approx(expected.p(2 / 3))
    assert result.interval == pytest.approx([2 / 3 - expected.reach(), 2 / 3 + expected.reach()])


def test_what_is_random_in_example_and_seed_counts_once() -> None:
    """4 seeds, 5,000 examples, values of deviation 1 all on their own: the mean's is 1/sqrt(20,000) = 0.00707."""
    values = {"books": np.random.default_rng(0).normal(0, 1, (4, 5000))}
    reach = np.diff(estimate(values, 1 / 5000, 1000).interval)[0] / 2
    assert reach == pytest.approx(1.96 / math.sqrt(20_000), rel=0.1)


def test_all_models_show_how_much_seeds_change_a_difference() -> None:
    """Seeds change the reference by 0, 0, 0 and the others by 1, -1, 0 and -1, 1, 0 tenths.

    The mean of each seed is 0, so the table's sum of squares is 0.04, with 2 · 2 degrees of freedom: a difference has
    the variance 2 · 0.01, which is more than its own of 0.01 and so counts, over 3 seeds.
    """
    one = np.zeros((3, 400))
    shifts = np.array([[0.1], [-0.1], [0.0]])
    estimates = differences("one", {"one": {"d": one}, "up": {"d": one + shifts}, "down": {"d": one - shifts}})
    expected = Uncertainty(1 / 400 / 400, 399, 0.02 / 3, 4).reach()
    assert estimates["up"].interval == pytest.approx([-expected, expected])
    assert estimates["up"].deviation == pytest.approx(0.1)


def test_equal_models_differ_by_nothing_and_four_examples_prove_little() -> None:
    """Four rows, all right against all wrong: a standard error of sqrt(1/4 / 4) = 1/4, 3 degrees of freedom."""
    rights = {"books": np.array([[1, 0, 1]] * 3)}
    same = difference(rights, rights)
    assert (same.mean, same.p) == (0, 1)
    four = difference({"books": np.ones((1, 4))}, {"books": np.zeros((1, 4))})
    assert four.interval == pytest.approx([1 - stats.t.ppf(0.975, 3) / 4, 1 + stats.t.ppf(0.975, 3) / 4])
    assert summary({"books": np.ones((3, 4))})["interval"][1] == 1


def test_an_accuracy_of_one_seed_has_the_interval_of_the_runs_table() -> None:
    rights = {"books": np.array([[1] * 18 + [0] * 2]), "kitchen": np.ones((1, 50))}
    assert summary(rights)["interval"] == accuracy_interval([0.9, 1], [20, 50])


def test_one_example_of_a_domain_has_no_interval() -> None:
    with pytest.raises(InputError, match="books: an interval needs two scored examples"):
        summary({"books": np.ones((1, 1)), "kitchen": np.ones((1, 3))})


def test_pairing_finds_what_lies_within_either_interval() -> None:
    """A model that is right wherever the other is, and on 10 more of 400, is better, though their intervals overlap."""
    weak, strong = ({"books": (np.arange(400) < rights).astype(int)[None]} for rights in (200, 210))
    assert difference(strong, weak).interval[0] > 0
    assert estimate(weak).interval[1] > estimate(strong).interval[0]


@pytest.mark.parametrize("deviation", [0.0, 0.02])
def test_equal_methods_are_rarely_called_different(deviation: float) -> None:
    """Three seeds, 12 comparisons: 6 % of 120 simulated experiments, and their chance (benchmarks/simulations.py)."""
    draw, errors = np.random.default_rng(0), 0
    for _ in range(120):
        results = compare("0", simulated(draw, 13, 3, deviation))
        errors += any(other["significant"] for other in results["against"].values())
    assert errors / 120 <= 0.06 + 0.035


def test_a_difference_of_two_points_is_seen() -> None:
    """Three seeds that differ by half a point, 2,160 examples, 12 comparisons: seen in 4 of 5 experiments or more."""
    draw, seen = np.random.default_rng(0), 0
    for _ in range(60):
        rights = simulated(draw, 13, 3, 0.005)
        worse = {d: values - 0.02 for d, values in rights["1"].items()}
        seen += compare("0", rights | {"1": worse})["against"]["1"]["significant"]
    assert seen / 60 >= 0.8


def simulated(draw: np.random.Generator, models: int, seeds: int, deviation: float) -> dict[str, dict[str, Any]]:
    """Models of equal accuracy, two of which differ over seeds by `deviation`: 4 domains of 540 examples."""
    effects = draw.normal(0, deviation / math.sqrt(2), (models, seeds, 1))
    return {
        str(model): {
            d: 0.5 + effects[model] + draw.normal(0, 0.1, (1, 540)) + draw.normal(0, 0.12, (seeds, 540)) for d in "abcd"
        }
        for model in range(models)
    }


@pytest.mark.parametrize("seeds", [1, 2])
def test_with_one_or_two_seeds_there_is_no_verdict(seeds: int) -> None:
    """Seeds that differ by 2 points would call equal methods different in 97 % of experiments, if only one is seen."""
    results = compare("0", simulated(np.random.default_rng(0), 3, seeds, 0.02))
    assert results["verdict"].startswith("No verdict: intervals cover other examples with the same seeds")
    assert all({"mean", "interval", "deviation"} == set(other) for other in results["against"].values())
    shown = markdown(EXPERIMENT | {"teachers": {}, "examples": dict.fromkeys("abcd", 540)} | results)
    assert "p (Holm)" not in shown


def test_holm_by_hand() -> None:
    """0.01 · 3, then 0.02 · 2 = 0.04, then 0.9; a later one is never below an earlier one; never above 1."""
    for ps, adjusted in (([0.9, 0.01, 0.02], [0.9, 0.03, 0.04]), ([0.02, 0.021], [0.04] * 2), ([0.6, 0.7], [1, 1])):
        assert holm(ps) == pytest.approx(adjusted)
    assert holm([]) == []


def test_the_verdict_names_what_is_significant_and_what_is_not() -> None:
    right = np.ones((3, 200), dtype=int)
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
