"""Means over seeds, 95 % intervals, and paired tests over examples and seeds.

Symbols: S seeds, K domains, N_k scored examples of domain k. `rights` of a model are a (S, N_k) array for each
domain, 1 where it is right; accuracy is the plain mean over domains of the mean over examples and seeds.

benchmarks/simulations.py has the error rates, the power and the coverage of all this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from metakd.utils.errors import InputError

Values = Mapping[str, NDArray[Any]]  # domain -> (S, N_k): rights (0 or 1), or differences of two models' rights
Floats = NDArray[np.float64]
LEVEL = 0.95
FEW = 3.5  # right or wrong examples: three, whatever rounding makes of them
FEWEST_SEEDS = 3  # of a verdict: how much seeds differ cannot be known from fewer
Z = float(stats.norm.ppf((1 + LEVEL) / 2))
CHANCES, CHANCE_WEIGHTS = (np.polynomial.legendre.leggauss(64) + np.array([[1], [0]])) / 2  # from 0 to 1


# --- Intervals of a score


def wilson(score: float, size: float) -> list[float]:
    """Wilson's interval for a score from 0 to 1 that is as uncertain as the share of right ones among `size` examples.

    With one to three right or wrong ones it reaches as far as a Poisson distribution of them demands (Brown, Cai and
    DasGupta, "Interval Estimation for a Binomial Proportion", 2001): Wilson's own is too short there.
    """
    center = (score + Z**2 / (2 * size)) / (1 + Z**2 / size)
    reach = Z / (1 + Z**2 / size) * np.sqrt(score * (1 - score) / size + Z**2 / (4 * size**2))
    low, high = center - reach, center + reach
    if 0 < (right := score * size) < FEW:
        low = min(low, stats.gamma.ppf(1 - LEVEL, right) / size)
    if 0 < (wrong := (1 - score) * size) < FEW:
        high = max(high, 1 - stats.gamma.ppf(1 - LEVEL, wrong) / size)
    return [float(max(low, 0)), float(min(high, 1))]


def accuracy_interval(accuracies: Sequence[float], counts: Sequence[int]) -> list[float]:
    """Wilson's interval for the plain mean of the accuracies on K samples of `counts` examples.

    Its size gives a share the variance of that mean. Both are computed with Z²/2 more right and wrong examples in each
    sample, so that a sample without errors has a variance too. For one sample it is the number of examples.
    """
    counts_ = np.asarray(counts, dtype=float)
    if len(counts_) == 1:
        return wilson(accuracies[0], counts_[0])
    shrunk = (np.asarray(accuracies) * counts_ + Z**2 / 2) / (counts_ + Z**2)
    variance = np.sum(shrunk * (1 - shrunk) / counts_) / len(counts_) ** 2
    return wilson(float(np.mean(accuracies)), shrunk.mean() * (1 - shrunk.mean()) / variance)


# --- Means over seeds, and their differences


@dataclass(frozen=True)
class Uncertainty:
    """The variance of a mean over other examples, and over other seeds, each with its degrees of freedom."""

    examples: float
    examples_freedom: float
    seeds: float = 0.0
    seeds_freedom: int = 1

    def p(self, distance: float) -> float:
        """The p value of a mean that is `distance` away from 0, two-sided.

        Student's t over examples, averaged over what the seeds' variance may be, given its estimate: with many examples
        the distribution of Behrens and Fisher. Satterthwaite's approximation has far too many degrees of freedom in the
        tail where few seeds differ much.
        """
        variances = self.examples + self.seeds * _possible_variances(self.seeds_freedom)
        ps = 2 * special.stdtr(self.examples_freedom, -abs(distance) / np.sqrt(variances))
        return float(np.average(ps, weights=CHANCE_WEIGHTS))

    def reach(self) -> float:
        """Half the width of the interval: the distance whose p is 1 - LEVEL."""
        each = ((self.examples, self.examples_freedom), (self.seeds, self.seeds_freedom))
        most = sum(np.sqrt(variance) * stats.t.ppf((1 + LEVEL) / 2, freedom) for variance, freedom in each)
        return float(optimize.brentq(lambda distance: self.p(distance) - (1 - LEVEL), 0, 1.01 * most, xtol=1e-7))


@cache
def _possible_variances(freedom: int) -> Floats:
    """Of a variance that was estimated as 1: freedom/χ² at CHANCES."""
    return np.asarray(freedom / stats.chi2.ppf(CHANCES, freedom))


@dataclass(frozen=True)
class Estimate:
    """A mean over domains, examples and seeds, with its interval, and the p value of the hypothesis that it is 0.

    With fewer than FEWEST_SEEDS seeds the interval covers other examples alone, and there is no p value.
    """

    mean: float
    interval: list[float]
    p: float | None
    deviation: float  # over seeds; 0 for one

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value is not None}


def estimate(values: Values, seeds_variance: float = 0.0, seeds_freedom: int = 0) -> Estimate:
    """The mean of `values`, with an interval for other examples of the same domains and, from 3 seeds on, other seeds.

    Examples and seeds are crossed random effects. The variance over seeds of one seed's mean has S - 1 degrees of
    freedom; if `seeds_variance` is known with more (`seeds_freedom`), the larger of the two counts, with these.
    Raises InputError for a domain with one example.
    """
    if few := [domain for domain, v in values.items() if v.shape[1] < 2]:
        raise InputError(f"{', '.join(few)}: an interval needs two scored examples of each domain")
    by_seed = _by_seed(values)
    seeds, mean = len(by_seed), float(by_seed.mean())
    deviation = float(by_seed.std(ddof=1)) if seeds > 1 else 0.0
    uncertainty, enough = Uncertainty(*_over_examples(values)), seeds >= FEWEST_SEEDS
    if enough:
        over_seeds = max(deviation**2, seeds_variance) / seeds
        uncertainty = replace(uncertainty, seeds=over_seeds, seeds_freedom=seeds_freedom or seeds - 1)
    reach = uncertainty.reach()
    return Estimate(mean, [mean - reach, mean + reach], uncertainty.p(mean) if enough else None, deviation)


def _by_seed(values: Values) -> Floats:
    """The plain mean over domains: (S,)."""
    return np.asarray(np.mean([v.mean(1) for v in values.values()], axis=0))


def _over_examples(values: Values) -> tuple[float, float]:
    """The variance of the mean over examples, each averaged over seeds, and its degrees of freedom.

    It is never less than if one example of each domain differed by 1 from the others. What is random in an example and
    seed together is also part of the variance over seeds, so it is taken out where that is counted.
    """
    parts = []
    for v in values.values():
        seeds, count = v.shape
        variance = v.mean(0).var(ddof=1)
        if seeds >= FEWEST_SEEDS:
            residuals = v - v.mean(0) - v.mean(1, keepdims=True) + v.mean()
            variance -= np.sum(residuals**2) / (seeds - 1) / (count - 1) / seeds
        parts.append((max(variance, 1 / count) / count / len(values) ** 2, count - 1))
    total = sum(part for part, _ in parts)
    return float(total), float(total**2 / sum(part**2 / freedom for part, freedom in parts))


def differences(reference: str, rights: Mapping[str, Values]) -> dict[str, Estimate]:
    """The reference minus each other model on the reference's domains, paired by example and seed.

    All models together show how much seeds change a difference: their variance in the table of models by seeds without
    what a seed changes in all of them, (models - 1)(S - 1) degrees of freedom. A pair whose difference varies more has
    its own variance.
    """
    domains = rights[reference]
    table = np.array([_by_seed({d: values[d] for d in domains}) for values in rights.values()])
    rest = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    freedom = (len(table) - 1) * (table.shape[1] - 1)
    variance = 2 * float(np.sum(rest**2)) / max(freedom, 1)
    return {
        name: estimate({d: domains[d].astype(float) - values[d] for d in domains}, variance, freedom)
        for name, values in rights.items()
        if name != reference
    }


def difference(one: Values, other: Values) -> Estimate:
    """`one` minus `other`, paired by example and seed."""
    return differences("one", {"one": one, "other": other})["other"]


def holm(ps: Sequence[float]) -> list[float]:
    """p values of several tests, adjusted so that a false positive is as unlikely as in a single test (Holm, 1979)."""
    p = np.asarray(ps, dtype=float)
    order = p.argsort(kind="stable")
    adjusted = np.maximum.accumulate(np.minimum(1, np.arange(len(p), 0, -1) * p[order]))
    return adjusted[order.argsort()].tolist()


def compare(reference: str, rights: Mapping[str, Values]) -> dict[str, Any]:
    """Every model's summary, the reference minus each other model, and the verdict on these differences.

    `rights` are those of each model, for the same seeds and examples in the same order. With fewer than FEWEST_SEEDS
    seeds no difference is called significant or not.
    """
    others = differences(reference, rights)
    against = {name: other.as_dict() for name, other in others.items()}
    tested = {name: other.p for name, other in others.items() if other.p is not None}
    for name, p in zip(tested, holm([*tested.values()]), strict=True):
        against[name] |= {"p_holm": p, "significant": p < 1 - LEVEL}
    return {
        "students": {name: summary(values) for name, values in rights.items()},
        "reference": reference,
        "against": against,
        "verdict": verdict(reference, against),
    }


def summary(values: Values) -> dict[str, Any]:
    """Accuracy of one model: of one seed with Wilson's interval, else with one clipped to 0 and 1."""
    accuracy = estimate(values).as_dict()
    accuracy.pop("p", None)  # nobody asks whether an accuracy is 0
    accuracy["interval"] = [min(max(end, 0.0), 1.0) for end in accuracy["interval"]]
    if all(len(v) == 1 for v in values.values()):
        accuracy["interval"] = accuracy_interval([v.mean() for v in values.values()], [v.size for v in values.values()])
    return accuracy | {"domains": {domain: float(v.mean()) for domain, v in values.items()}}


def are_tested(against: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether there were seeds enough for p values."""
    return all("significant" in other for other in against.values())


def verdict(reference: str, against: Mapping[str, Mapping[str, Any]]) -> str:
    """Which differences of the reference are statistically significant, and which are not, in words."""
    if not against:
        return f"{reference} alone, so that nothing is compared."
    if not are_tested(against):
        return (
            f"No verdict: intervals cover other examples with the same seeds, and whether other seeds agree takes "
            f"{FEWEST_SEEDS} seeds."
        )
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
