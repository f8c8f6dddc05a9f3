"""Error rates, power and coverage of metakd's statistics in simulated experiments, with what is true known.

    python benchmarks/simulations.py [--experiments 400] [--output benchmarks/results/simulations.json]

**Verdicts.** 13 methods (12 comparisons), 4 domains of 540 examples. The rights of a method are its accuracy plus an
effect of each seed, of each example, and of each example and seed (normal). Deviations are those of the difference of
two methods: over seeds 0 to 2 points, over examples and over both together as in KINDS. Counted: how often any of 12
equal methods is called different from the first (family-wise error), and how often a method that is 2 points
worse is (power), beside the power of a test that knows all variances, which no honest test can exceed by much.

**Coverage.** How often the interval of a score holds the truth: of an accuracy by the exact binomial distribution, of
averages over domains and of macro-F1 by drawing.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from metakd.evaluation.metrics import macro_f1, macro_f1_interval
from metakd.evaluation.statistics import LEVEL, Values, accuracy_interval, differences, holm
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import environment

OUTPUT = Path(__file__).parent / "results" / "simulations.json"
DOMAINS, ROWS, METHODS, EFFECT = 4, 540, 13, 0.02
# Deviations of a difference over examples, and over examples and seeds together, as in benchmarks/results/evidence/
# defaults.jsonl: methods that share a teacher's kind (mtl_kd: 0.05 and 0.19; mix_kd: 0.09 and 0.17), and single_kd,
# whose teachers differ (0.22 and 0.20). The last has more than any pair of KD methods there.
KINDS = {"alike": (0.10, 0.18), "different": (0.22, 0.20), "very different": (0.30, 0.20)}
OVER_SEEDS = (0.0, 0.005, 0.01, 0.02)
COUNTS, ACCURACIES = (50, 100, 200, 500, 1000, 2000), (0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)


def drawn(draw: np.random.Generator, seeds: int, over_seeds: Sequence[float], kind: str) -> list[Values]:
    """Rights of equal methods; `over_seeds` of each is its deviation of a difference from one like it."""
    examples, both = (deviation / np.sqrt(2) for deviation in KINDS[kind])
    rights = []
    for deviation in over_seeds:
        effect = draw.normal(0, deviation / np.sqrt(2), (seeds, 1))
        shape = (seeds, ROWS)
        rights.append(
            {
                str(d): 0.8 + effect + draw.normal(0, examples, (1, ROWS)) + draw.normal(0, both, shape)
                for d in range(DOMAINS)
            }
        )
    return rights


def called_different(rights: Sequence[Values]) -> NDArray[np.bool_]:
    """Which of the others are significantly different from the first, after Holm."""
    ps = [each.p for each in differences("0", {str(i): values for i, values in enumerate(rights)}).values()]
    return np.array(holm([p for p in ps if p is not None])) < 1 - LEVEL


def verdicts(experiments: int) -> Iterator[dict[str, Any]]:
    """Of 12 comparisons and of one; last where the seeds of one method differ four times as much as the others'."""
    draw = np.random.default_rng(0)
    cases = [(METHODS, *case, 1) for case in product((3, 4, 5), KINDS, OVER_SEEDS)]
    cases += [(2, seeds, "different", deviation, 1) for seeds, deviation in product((3, 4, 5), OVER_SEEDS)]
    cases += [(METHODS, seeds, kind, 0.02, 4) for seeds, kind in product((3, 5), ("alike", "different"))]
    for methods, seeds, kind, deviation, times in cases:
        over_seeds = [deviation if i == 1 else deviation / times for i in range(methods)]
        errors = seen = 0
        for _ in range(experiments):
            rights = drawn(draw, seeds, over_seeds, kind)
            errors += called_different(rights).any()
            worse = {domain: values - EFFECT for domain, values in rights[-1].items()}
            seen += called_different([*rights[:-1], worse])[-1]
        variance = over_seeds[-1] ** 2 / seeds + (KINDS[kind][0] ** 2 + KINDS[kind][1] ** 2 / seeds) / (DOMAINS * ROWS)
        limit = stats.norm.isf((1 - LEVEL) / 2 / (methods - 1))
        yield {
            "seeds": seeds,
            "methods": kind,
            "comparisons": methods - 1,
            "deviation_over_seeds": over_seeds[-1],
            "deviation_of_one": over_seeds[1],
            "error": errors / experiments,
            "power": seen / experiments,
            "power_if_variances_were_known": float(stats.norm.sf(limit - EFFECT / np.sqrt(variance))),
        }


def coverage_of_accuracy() -> dict[str, Any]:
    """Of one domain, exactly."""
    covered = {}
    for count in COUNTS:
        low, high = zip(*(accuracy_interval([right / count], [count]) for right in range(count + 1)), strict=True)
        for p in ACCURACIES:
            hits = (np.array(low) <= p) & (p <= np.array(high))
            covered[f"{p} of {count}"] = float(stats.binom.pmf(range(count + 1), count, p)[hits].sum())
    return shown(covered)


def coverage_of_averages(draws: int = 4000) -> dict[str, Any]:
    """Of 2 to 10 domains with sizes and accuracies alike, and as unlike as COUNTS and ACCURACIES allow."""
    draw, covered = np.random.default_rng(0), {}
    for domains in (2, 3, 4, 6, 10):
        odd = np.arange(domains) % 2
        cases = [([n] * domains, [p] * domains) for n, p in product((50, 200, 2000), (0.6, 0.8, 0.9, 0.95, 0.98, 0.99))]
        cases += [([n] * domains, np.where(odd, 0.6, 0.99)) for n in (50, 200, 2000)]
        cases += [(np.where(odd, *sizes), np.where(odd, 0.6, 0.99)) for sizes in ((50, 2000), (2000, 50))]
        for counts, p in cases:
            right = draw.binomial(counts, p, (draws, domains))
            intervals = np.array([accuracy_interval(each / np.array(counts), counts) for each in right])
            name = f"{domains} domains, {sorted(set(map(float, p)))} of {sorted(set(map(int, counts)))}"
            covered[f"{name}, case {len(covered)}"] = holds(intervals, float(np.mean(p)))
    return shown(covered)


def coverage_of_macro_f1(draws: int = 2000) -> dict[str, Any]:
    """Of classes alike and unlike in size, the same share of each right, mistaken for others by their size."""
    draw, covered = np.random.default_rng(0), {}
    classes = (
        [0.5, 0.5],
        [0.8, 0.2],
        [0.95, 0.05],
        [0.5, 0.3, 0.2],
        [0.2] * 5,
        [0.4, 0.3, 0.15, 0.1, 0.05],
        [0.1] * 10,
    )
    for shares, count, p in product(classes, COUNTS, ACCURACIES):
        if count * min(shares) < 5:  # too few of a class to know anything of its F1
            continue
        others = np.array(shares) * (1 - np.eye(len(shares)))
        truth = np.array(shares)[:, None] * ((1 - p) * others / others.sum(1, keepdims=True) + p * np.eye(len(shares)))
        matrices = draw.multinomial(count, truth.ravel(), draws).reshape(draws, *truth.shape)
        intervals = np.array([macro_f1_interval([matrix]) for matrix in matrices])
        covered[f"{p} of {count}, classes of {shares}"] = holds(intervals, float(macro_f1(truth)))
    return shown(covered)


def holds(intervals: NDArray[np.float64], truth: float) -> float:
    return float(np.mean((intervals[:, 0] <= truth) & (truth <= intervals[:, 1])))


def shown(covered: Mapping[str, float]) -> dict[str, Any]:
    """Mean and least, and the five worst cases."""
    worst = sorted(covered, key=lambda name: covered[name])[:5]
    values = [*covered.values()]
    return {
        "cases": len(values),
        "mean": float(np.mean(values)),
        "least": min(values),
        "worst": {name: covered[name] for name in worst},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=400)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    results: dict[str, Any] = {
        "experiments": options.experiments,
        "effect": EFFECT,
        "examples": DOMAINS * ROWS,
        "coverage": {
            "accuracy": coverage_of_accuracy(),
            "average over domains": coverage_of_averages(),
            "macro-F1": coverage_of_macro_f1(),
        },
        "verdicts": [],
        "environment": environment(),
    }
    print(json.dumps(results["coverage"], indent=2))
    for row in verdicts(options.experiments):
        print(json.dumps(row), flush=True)
        results["verdicts"].append(row)
    write_json(options.output, results)


if __name__ == "__main__":
    main()
