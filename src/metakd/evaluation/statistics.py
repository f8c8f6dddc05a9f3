"""What several seeds show: means, 95 % intervals, paired tests over examples and seeds.

Symbols: S seeds, K domains, N_k scored examples of domain k. What a model got right is a (S, N_k) array for each
domain; accuracy is the plain mean over domains of the mean over examples and seeds.
"""

from __future__ import annotations

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
    """A mean over domains, examples and seeds, with its interval and the chance of one as far from 0 were it 0."""

    mean: float
    low: float
    high: float
    p: float
    deviation: float  # over seeds; 0 for one
    seeds: int


def estimate(values: Values) -> Estimate:
    """The mean of `values` for other examples of the same domains and for other seeds.

    Its variance is that of the mean over examples (each averaged over seeds, within its domain, and never less than if
    one of them differed by 1 from the others) plus that of the mean over seeds, as for crossed random effects. The t
    distribution has Satterthwaite's degrees of freedom, which is somewhat too sure of itself where there are two or
    three seeds and they differ much. One seed says nothing of others: examples alone count then.
    """
    by_seed = np.mean([v.mean(1) for v in values.values()], axis=0)  # (S,)
    seeds, mean = len(by_seed), float(by_seed.mean())
    parts = []
    for own in values.values():
        count = own.shape[1]
        parts.append((max(own.mean(0).var(ddof=1), 1 / count) / count / len(values) ** 2, count - 1))
    if seeds > 1:
        parts.append((by_seed.var(ddof=1) / seeds, seeds - 1))
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / own for part, own in parts)
    error = float(np.sqrt(variance))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, freedom))
    return Estimate(mean, mean - reach, mean + reach, p, float(by_seed.std(ddof=1)) if seeds > 1 else 0.0, seeds)


def difference(one: Values, other: Values) -> Estimate:
    """`one` minus `other`, paired by example and seed."""
    return estimate({domain: one[domain].astype(float) - other[domain] for domain in one})


def holm(ps: Sequence[float]) -> list[float]:
    """p values of several tests, raised so that the chance of any false finding stays that of one test (Holm, 1979)."""
    raised, least = [0.0] * len(ps), 0.0
    for place, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        least = max(least, min(1.0, (len(ps) - place) * ps[index]))
        raised[index] = least
    return raised


def compare(reference: str, rights: Mapping[str, Values]) -> dict[str, Any]:
    """Every model's summary, the reference held against each other one, and what that establishes.

    `rights` say of each model what it got right, for the same seeds and examples in the same order.
    """
    others = [name for name in rights if name != reference]
    found = {name: difference(rights[reference], rights[name]) for name in others}
    raised = holm([found[name].p for name in others])
    against = {
        name: as_dict(found[name]) | {"p_holm": p, "established": p < 1 - LEVEL}
        for name, p in zip(others, raised, strict=True)
    }
    return {
        "students": {name: summary(values) for name, values in rights.items()},
        "reference": reference,
        "against": against,
        "verdict": verdict(reference, against),
    }


def summary(values: Values) -> dict[str, Any]:
    """Accuracy of one model; its interval ends where accuracies do."""
    found = estimate(values)
    found = replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))
    return as_dict(found) | {"domains": {domain: float(own.mean()) for domain, own in values.items()}}


def verdict(reference: str, against: Mapping[str, Mapping[str, Any]]) -> str:
    """What is established of the reference, and what is not, in words."""
    if not against:
        return f"{reference} alone, so that nothing is compared."
    groups: dict[str, list[str]] = {"better": [], "worse": [], "open": []}
    for name, found in against.items():
        group = ("better" if found["mean"] > 0 else "worse") if found["established"] else "open"
        groups[group].append(f"{name} ({points(found)})")
    parts = [f"{reference} is {how} than {', '.join(groups[how])}" for how in ("better", "worse") if groups[how]]
    if not parts:
        return f"No difference of {reference} from the others is established."
    told = f"Established: {'; '.join(parts)}."
    return told + (f" Not established: a difference from {', '.join(groups['open'])}." if groups["open"] else "")


def points(found: Mapping[str, Any]) -> str:
    """A difference and its interval in points of accuracy."""
    return "{:+.1f}, {:+.1f} to {:+.1f}".format(*(100 * value for value in (found["mean"], *found["interval"])))


def as_dict(found: Estimate) -> dict[str, Any]:
    return {"mean": found.mean, "interval": [found.low, found.high], "deviation": found.deviation, "p": found.p}
