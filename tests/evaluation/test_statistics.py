"""What several seeds establish, worked by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from metakd.evaluation.statistics import Estimate, compare, difference, estimate, holm, summary, verdict
from metakd.experiments.tables import markdown


def test_one_seed_and_domain_is_the_t_interval_of_a_mean() -> None:
    """Values 1, 1, 0, 0, 1: mean 0.6, standard error sqrt(0.3 / 5), 4 degrees of freedom."""
    values = np.array([[1, 1, 0, 0, 1]])
    found = estimate({"books": values})
    low, high = stats.t.interval(0.95, 4, loc=0.6, scale=math.sqrt(0.3 / 5))
    assert found == pytest.approx(Estimate(0.6, low, high, stats.ttest_1samp(values[0], 0).pvalue, 0.0, 1))


def test_variances_of_examples_and_of_seeds_add_up() -> None:
    """Two seeds, two domains of two examples.

    books: seeds (1, 1) and (1, 0); kitchen: (1, 0) and (0, 0). Seeds: (1 + 1/2)/2 = 0.75 and (1/2 + 0)/2 = 0.25:
    mean 0.5, variance 0.125, over 2 seeds 0.0625. Examples over seeds: books (1, 0.5), kitchen (0.5, 0): variance
    0.125 each, below the least of 1/2; over 2 examples and 2² domains 0.0625 each. In all 0.1875; degrees of freedom
    0.1875² / (3 · 0.0625²) = 3.
    """
    found = estimate({"books": np.array([[1, 1], [1, 0]]), "kitchen": np.array([[1, 0], [0, 0]])})
    reach = stats.t.ppf(0.975, 3) * math.sqrt(0.1875)
    p = 2 * stats.t.sf(0.5 / math.sqrt(0.1875), 3)
    assert found == pytest.approx(Estimate(0.5, 0.5 - reach, 0.5 + reach, p, math.sqrt(0.125), 2))


def test_equal_models_differ_by_nothing_and_four_examples_prove_little() -> None:
    """Four rows, all right against all wrong: a standard error of sqrt(1/4 / 4) = 1/4, 3 degrees of freedom."""
    rights = {"books": np.array([[1, 0, 1]])}
    same = difference(rights, rights)
    assert (same.mean, same.p) == (0, 1)
    assert same.low < 0 < same.high
    found = difference({"books": np.ones((1, 4))}, {"books": np.zeros((1, 4))})
    assert found.p == pytest.approx(2 * stats.t.sf(4, 3))
    assert found.low < 1 < found.high
    assert compare("a", {"a": {"books": np.ones((1, 4))}})["students"]["a"]["interval"][1] == 1


def test_pairing_finds_what_lies_within_either_interval() -> None:
    """A model that is right wherever the other is, and on 10 more of 400, is better; their own intervals overlap."""
    weak = np.zeros((1, 400), dtype=int)
    weak[0, :200] = 1
    strong = weak.copy()
    strong[0, 200:210] = 1
    paired = difference({"books": strong}, {"books": weak})
    assert paired.low > 0
    assert estimate({"books": weak}).high > estimate({"books": strong}).low


@pytest.mark.parametrize(
    ("seeds", "effect", "rows", "least", "most"),
    [
        (1, 0.0, 300, 0.03, 0.07),
        (5, 0.01, 300, 0.03, 0.07),
        (3, 0.01, 300, 0.03, 0.07),
        (3, 0.02, 700, 0.05, 0.09),
        (2, 0.02, 700, 0.08, 0.13),
    ],
)
def test_intervals_hold_what_they_promise(seeds: int, effect: float, rows: int, least: float, most: float) -> None:
    """Of 1,000 draws with effects of examples and of seeds around 0, intervals of 95 % miss about 50.

    With two or three seeds that differ much they miss more (106 and 74 here), as the docs say.
    """
    draw = np.random.default_rng(0)
    missed = 0
    for _ in range(1000):
        common = draw.normal(0, effect, (seeds, 1))
        values = {d: common + draw.normal(0, 0.3, (1, rows)) + draw.normal(0, 0.2, (seeds, rows)) for d in "abcd"}
        found = estimate(values)
        missed += not found.low <= 0 <= found.high
    assert least <= missed / 1000 <= most


def test_holm_by_hand() -> None:
    """0.01 · 3, then 0.02 · 2 = 0.04, then 0.9; a later one is never below an earlier one; never above 1."""
    assert holm([0.9, 0.01, 0.02]) == pytest.approx([0.9, 0.03, 0.04])
    assert holm([0.02, 0.021]) == pytest.approx([0.04, 0.04])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


def test_the_verdict_names_what_is_established_and_what_is_not() -> None:
    right = np.ones((2, 200), dtype=int)
    wrong = right.copy()
    wrong[:, :40] = 0
    nearly = right.copy()
    nearly[0, 0] = 0
    rights = {"ours": {"books": nearly}, "weak": {"books": wrong}, "strong": {"books": right}}
    found = compare("ours", rights)
    assert found["verdict"].startswith("Established: ours is better than weak (+19.8")
    assert "Not established: a difference from strong (-0.2" in found["verdict"]
    assert found["against"]["weak"]["p_holm"] == pytest.approx(2 * found["against"]["weak"]["p"])
    assert "worse than strong" in verdict(
        "o", {"strong": {"mean": -0.1, "interval": [-0.2, -0.1], "established": True}}
    )
    even = {"mean": 0.0, "interval": [-0.1, 0.1], "established": False}
    assert verdict("o", {"even": even}) == "No difference of o from the others is established."
    assert verdict("o", {}) == "o alone, so that nothing is compared."


def test_the_table_has_a_line_a_model() -> None:
    right = {"books": np.array([[1, 1, 0, 1]]), "kitchen": np.array([[1, 0, 0, 1]])}
    wrong = {"books": np.array([[0, 1, 0, 1]]), "kitchen": np.array([[0, 0, 0, 1]])}
    results = compare("ours", {"ours": right, "other": wrong}) | {
        "teachers": {},
        "checks": {},
        "examples": {"books": 4, "kitchen": 4},
        "split": "test",
        "data": "reviews",
        "seeds": [0],
    }
    lines = markdown(results).splitlines()
    assert lines[2].startswith("| ours | 75.0 | 50.0 | 62.5 |")
    assert lines[3].startswith("| other | 50.0 | 25.0 | 37.5 |")
    assert "| +25.0, " in lines[3]
    assert "books 4, kitchen 4" in lines[-1]


def test_of_trials_the_best_of_each_line_is_bold_and_no_difference_is_told() -> None:
    rights = {
        "shared, 2 at 0.1": {"books": np.array([[1, 0, 1, 0]])},
        "shared, 5 at 0.1": {"books": np.array([[1, 1, 1, 0]])},
        "hrkd, 2 at 0.1": {"books": np.array([[1, 1, 1, 1]])},
    }
    results = {
        "split": "dev",
        "data": "reviews",
        "examples": {"books": 4},
        "seeds": [0],
        "teachers": {"meta teacher": summary({"books": np.array([[1, 1, 0, 0]])})},
        "students": {name: summary(values) for name, values in rights.items()},
        "checks": {},
        "best": {
            "shared": {"trial": "shared, 5 at 0.1", "trials": ["shared, 2 at 0.1", "shared, 5 at 0.1"]},
            "hrkd": {"trial": "hrkd, 2 at 0.1", "trials": ["hrkd, 2 at 0.1"]},
        },
    }
    shown = markdown(results)
    _, _, *rows, _, told = shown.strip().splitlines()
    assert rows == ["| shared | 2 at 0.1: 50.0 | **5 at 0.1: 75.0** |", "| hrkd | **2 at 0.1: 100.0** |"]
    assert told.endswith("Teachers: meta teacher 50.0.")
    assert "stablished" not in shown
