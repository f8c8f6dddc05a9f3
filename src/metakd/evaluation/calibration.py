"""Temperature scaling: probabilities that are right as often as they say [Guo et al., ICML 2017].

N texts, M classes. z are the logarithms of a model's probabilities, so p_T = softmax(z / T). Labels do not change. If a
text may have several labels, each is a question by itself with two answers, no and yes: (N, M, 2).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.model_selection import KFold

from metakd.data.labels import several_columns
from metakd.data.schema import Example
from metakd.data.splits import by_domain
from metakd.evaluation.metrics import Floats, Ints
from metakd.inference.long_texts import logs
from metakd.inference.torch_backend import TorchModel

FEWEST = 50  # texts; with fewer, nothing is calibrated
SPREAD = 0.15  # standard deviation of log T from domain to domain: chosen, as Amazon's dev hardly decides it
FOLDS, BINS, DRAWS = 5, 15, 200
RANGE = (0.05, 20.0)  # of T


class Answers(NamedTuple):
    """What a model says of a domain's texts."""

    log_p: Floats  # (N, M), −∞ for what is not one of the model's classes; or (N, M, 2)
    truth: Ints  # (N,); or (N, M), 0 or 1

    @property
    def questions(self) -> Answers:
        """The same, (N · M, 2), if each label is a question by itself."""
        return Answers(self.log_p.reshape(-1, self.log_p.shape[-1]), self.truth.ravel())


def fit_temperature(log_p: Floats, truth: Ints, of_all: float | None = None) -> float:
    """The T of the least mean negative log-likelihood; for one domain of several, of the greatest posterior density.

    As if a share 1 / (N + 2) of the texts had any class (as Platt, 1999): else a model that is always right is made
    infinitely sure.

    Args:
        log_p: z, (N, M) [Answers].
        truth: The classes, (N,).
        of_all: T_0, that of all domains. Then log T has a normal prior around log T_0 with deviation SPREAD, which adds
            (log T − log T_0)² / (2 SPREAD² N).
    """
    share = 1 / (truth.size + 2)

    def loss(log_t: float) -> float:
        scaled = log_softmax(log_p / np.exp(log_t), axis=-1)
        right = np.take_along_axis(scaled, truth[..., None], -1).mean()
        prior = 0.0 if of_all is None else ((log_t - np.log(of_all)) / SPREAD) ** 2 / (2 * truth.size)
        return float(-(1 - share) * right - share * scaled[np.isfinite(scaled)].mean() + prior)

    least = minimize_scalar(loss, bounds=np.log(RANGE), method="bounded", options={"xatol": 1e-5})
    return round(float(np.exp(least.x)), 4)


def fit_temperatures(answers: Mapping[str, Answers], domains: Collection[str]) -> dict[str, float]:
    """T of each domain: the fewer texts it has, the nearer to that of all texts."""
    of_all = fit_temperature(*together([*answers.values()]))
    each = {d: fit_temperature(*of_domain, of_all) for d, of_domain in answers.items() if of_domain.truth.size}
    return dict.fromkeys(domains, of_all) | each


def together(answers: Sequence[Answers]) -> Answers:
    """Those of all domains."""
    return Answers(*map(np.concatenate, zip(*(each.questions for each in answers), strict=True)))


def cross_fitted(answers: Mapping[str, Answers], seed: int) -> dict[str, Floats]:
    """z / T by domain, (N, M), where the T of each text was chosen without it: in FOLDS parts, drawn by `seed`."""
    scaled = {domain: np.zeros_like(each.log_p) for domain, each in answers.items()}
    counts = [len(each.truth) for each in answers.values()]
    parts = dict(zip(answers, np.split(folds(sum(counts), seed), np.cumsum(counts)[:-1]), strict=True))
    for fold in range(FOLDS):
        others = {d: Answers(*(column[parts[d] != fold] for column in each)) for d, each in answers.items()}
        for domain, t in fit_temperatures(others, answers).items():
            held_out = parts[domain] == fold
            scaled[domain][held_out] = answers[domain].log_p[held_out] / t
    return scaled


def folds(count: int, seed: int) -> Ints:
    """The part of each text, (N,)."""
    parts = np.zeros(count, np.int64)
    for number, (_, rows) in enumerate(KFold(FOLDS, shuffle=True, random_state=seed).split(parts)):
        parts[rows] = number
    return parts


def quality(log_p: Floats, truth: Ints, seed: int) -> dict[str, float]:
    """How far probabilities can be trusted.

    Returns:
        `log_likelihood_loss`: the mean negative log-likelihood of the true classes; `calibration_error`: the root mean
        squared difference of confidence and accuracy in BINS bins of as many texts, less what chance adds to it
        (debiased: Kumar et al., NeurIPS 2019), or 0 where chance adds more; `ece`: the mean absolute difference;
        `ece_of_chance`: what that would be on average if the probabilities were exact.
    """
    scaled = log_softmax(log_p, axis=-1)
    confidence, right = np.exp(scaled.max(-1)), scaled.argmax(-1) == truth
    bins = np.array_split(confidence.argsort(kind="stable"), min(BINS, max(1, len(truth) // 2)))
    squared = 0.0
    for rows in bins:
        share, accuracy = len(rows) / len(truth), right[rows].mean()
        chance = accuracy * (1 - accuracy) / (len(rows) - 1) if len(rows) > 1 else 0.0
        squared += share * ((confidence[rows].mean() - accuracy) ** 2 - chance)
    draw = np.random.default_rng(seed)
    by_chance = [_ece(confidence, draw.random(len(truth)) < confidence, bins) for _ in range(DRAWS)]
    return {
        "log_likelihood_loss": round(float(-scaled[np.arange(len(truth)), truth].mean()), 4),
        "calibration_error": round(float(np.sqrt(max(0.0, squared))), 4),
        "ece": round(_ece(confidence, right, bins), 4),
        "ece_of_chance": round(float(np.mean(by_chance)), 4),
    }


def _ece(confidence: Floats, right: np.ndarray, bins: Sequence[Ints]) -> float:
    """Σ_b |confidence − accuracy| · share of b."""
    gaps = [np.abs(confidence[rows].mean() - right[rows].mean()) * len(rows) for rows in bins]
    return float(np.sum(gaps) / len(confidence))


def calibrate(
    fleet: Mapping[str, Path],
    dev: Sequence[Example],
    load: Callable[[Path], TorchModel],
    seed: int,
) -> dict[str, Any]:
    """The temperature of each domain's model, and what that brings.

    Args:
        fleet: The folder of each domain's model.
        dev: Labelled texts that none of them has learnt from, each once; those of a class that its domain's model does
            not have are not used.
        load: Loads a model as it was trained.
        seed: Draws folds.

    Returns:
        `temperatures` by domain; `texts`, `before` and `after` [quality], of all domains' texts, cross-fitted. Where
        temperatures do not improve the likelihood, all are 1. Nothing for fewer than FEWEST texts.
    """
    rows, answers = by_domain(dev), dict[str, Answers]()
    for domain, folder in fleet.items():
        model = load(folder) if domain in rows else None
        if model and (examples := [e for e in rows[domain] if {*e.classes} <= {*model.labels}]):
            answers[domain] = _answers(model, examples)
    widest = max((each.log_p.shape[-1] for each in answers.values()), default=0)
    for domain, each in answers.items():
        missing = (*[(0, 0)] * (each.log_p.ndim - 1), (0, widest - each.log_p.shape[-1]))
        answers[domain] = each._replace(log_p=np.pad(each.log_p, missing, constant_values=-np.inf))
    if sum(len(each.truth) for each in answers.values()) < FEWEST:
        return {}
    texts, raw = sum(len(each.truth) for each in answers.values()), together([*answers.values()])
    scaled = cross_fitted(answers, seed)
    before = quality(*raw, seed)
    after = quality(*together([each._replace(log_p=scaled[domain]) for domain, each in answers.items()]), seed)
    worse = after["log_likelihood_loss"] >= before["log_likelihood_loss"]
    temperatures = dict.fromkeys(fleet, 1.0) if worse else fit_temperatures(answers, fleet)
    return {"temperatures": temperatures, "texts": texts, "before": before, "after": before if worse else after}


def _answers(model: TorchModel, examples: Sequence[Example]) -> Answers:
    p = model.answers(examples).probabilities.astype(np.float64)
    z = logs(p, model.several_labels)
    places = {name: i for i, name in enumerate(model.labels)}
    if not model.several_labels:
        return Answers(z, np.array([places[e.label] for e in examples]))
    log_p = -np.logaddexp(0, np.stack([z, -z], axis=-1))
    return Answers(log_p, several_columns(examples, places).astype(np.int64))
