"""Means over seeds, 95 % intervals, and paired tests over examples and seeds.

Symbols: S seeds, K domains, N_k scored examples of domain k. `rights` of a model are a (S, N_k) array for each
domain, 1 where it is right; accuracy is the plain mean over domains of the mean over examples and seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Values = Mapping[str, NDArray[Any]]  # domain -> (S, N_k): rights (0 or 1), or differences of two models' rights
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over domains, examples and seeds, with its interval and the p value of the hypothesis that it is 0."""

    mean: float
    low: float
    high: float
    p: float
    deviation: float  # over seeds; 0 for one


def estimate(values: Values) -> Estimate:
    """The mean of `values`, with an interval for new examples of the same domains and new seeds.

    Its variance is that of the mean over examples (each averaged over seeds, within its domain, and never less than if
    one of them differed by 1 from the others) plus that of the mean over seeds, as for crossed random effects. The t
    distribution has Satterthwaite's degrees of freedom, with which intervals are somewhat too narrow for two or
    three seeds that differ much. With one seed, the variance over examples alone counts.
    """
    by_seed = np.mean([v.mean(1) for v in values.values()], axis=0)  # (S,)
    seeds, mean = len(by_seed), float(by_seed.mean())
    parts = []
    for v in values.values():
        count = v.shape[1]
        parts.append((max(v.mean(0).var(ddof=1), 1 / count) / count / len(values) ** 2, count - 1))
    if seeds > 1:
        parts.append((by_seed.var(ddof=1) / seeds, seeds - 1))
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / dof for part, dof in parts)
    error = float(np.sqrt(variance))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, freedom))
    return Estimate(mean, mean - reach, mean + reach, p, float(by_seed.std(ddof=1)) if seeds > 1 else 0.0)


def difference(one: Values, other: Values) -> Estimate:
    """`one` minus `other`, paired by example and seed."""
    return estimate({domain: one[domain].astype(float) - other[domain] for domain in one})


def holm(ps: Sequence[float]) -> list[float]:
    """p values of several tests, adjusted so that a false positive is as unlikely as in a single test (Holm, 1979)."""
    p = np.asarray(ps, dtype=float)
    order = p.argsort(kind="stable")
    adjusted = np.maximum.accumulate(np.minimum(1, np.arange(len(p), 0, -1) * p[order]))
    return adjusted[order.argsort()].tolist()


def compare(reference: str, rights: Mapping[str, Values]) -> dict[str, Any]:
    """Every model's summary, the reference minus each other model, and the verdict on these differences.

    `rights` are those of each model, for the same seeds and examples in the same order.
    """
    others = {name: difference(rights[reference], values) for name, values in rights.items() if name != reference}
    adjusted = holm([other.p for other in others.values()])
    against = {
        name: as_dict(other) | {"p_holm": p, "significant": p < 1 - LEVEL}
        for (name, other), p in zip(others.items(), adjusted, strict=True)
    }
    return {
        "students": {name: summary(values) for name, values in rights.items()},
        "reference": reference,
        "against": against,
        "verdict": verdict(reference, against),
    }


def summary(values: Values) -> dict[str, Any]:
    """Accuracy of one model; its interval is clipped to 0 and 1."""
    accuracy = estimate(values)
    clipped = replace(accuracy, low=max(accuracy.low, 0.0), high=min(accuracy.high, 1.0))
    return as_dict(clipped) | {"domains": {domain: float(v.mean()) for domain, v in values.items()}}


def verdict(reference: str, against: Mapping[str, Mapping[str, Any]]) -> str:
    """Which differences of the reference are statistically significant, and which are not, in words."""
    if not against:
        return f"{reference} alone, so that nothing is compared."
    groups: dict[str, list[str]] = {"better": [], "worse": [], "neither": []}
    for name, other in against.items():
        group = ("better" if other["mean"] > 0 else "worse") if other["significant"] else "neither"
        groups[group].append(f"{name} ({points(other)})")
    criterion = f"(Holm-adjusted p < {1 - LEVEL:.2f})"
    parts = [f"{reference} is {how} than {', '.join(groups[how])}" for how in ("better", "worse") if groups[how]]
    if not parts:
        return f"No difference of {reference} from the others is statistically significant {criterion}."
    rest = f" Not significant: a difference from {', '.join(groups['neither'])}." if groups["neither"] else ""
    return f"Statistically significant {criterion}: {'; '.join(parts)}.{rest}"


def points(difference: Mapping[str, Any]) -> str:
    """A difference of accuracies and its interval, in percentage points."""
    return "{:+.1f}, {:+.1f} to {:+.1f}".format(*(100 * x for x in (difference["mean"], *difference["interval"])))


def as_dict(e: Estimate) -> dict[str, Any]:
    return {"mean": e.mean, "interval": [e.low, e.high], "deviation": e.deviation, "p": e.p}
