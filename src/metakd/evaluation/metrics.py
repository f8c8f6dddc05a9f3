"""Accuracy and macro-F1 of a domain, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Predictions:
    """True and predicted classes of one model on one domain, and how sure it was of those that it chose."""

    truth: Ints  # (N,)
    predicted: Ints  # (N,)
    confidence: Floats  # (N,), the probability of the predicted class


def confusion(predictions: Predictions, num_labels: int) -> Ints:
    """How often class i (row) was called j (column): (M, M)."""
    cells = predictions.truth * num_labels + predictions.predicted
    return np.bincount(cells, minlength=num_labels**2).reshape(num_labels, num_labels)


def accuracy(matrix: Ints) -> Floats:
    """Share on the diagonal of (..., M, M) confusion matrices -> (...)."""
    return np.trace(matrix, axis1=-2, axis2=-1) / matrix.sum((-2, -1))


def macro_f1(matrix: Ints) -> Floats:
    """Mean F1 over the classes that occur among truths or predictions, as scikit-learn's; (..., M, M) -> (...)."""
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    marks = matrix.sum(-1) + matrix.sum(-2)  # 2·tp + fp + fn
    present = marks > 0
    f1 = np.divide(2 * hits, marks, out=np.zeros(hits.shape), where=present)
    return f1.sum(-1) / present.sum(-1)


def score(
    domains: Mapping[str, Predictions], averaged: set[str], num_labels: int, resamples: int, seed: int
) -> dict[str, Any]:
    """Accuracy and macro-F1 of one model, for each domain and as the plain mean of the `averaged` domains.

    95 % intervals are percentiles over bootstrap resamples of the examples, drawn within each domain.
    """
    by_domain, means, samples = {}, [], []
    for index, (domain, predictions) in enumerate(sorted(domains.items())):
        matrix = confusion(predictions, num_labels)
        count = int(matrix.sum())
        # Resampling N examples with replacement draws the cells of the confusion matrix from a multinomial.
        drawn = np.random.default_rng([seed, index]).multinomial(count, matrix.ravel() / count, resamples)
        drawn = drawn.reshape(resamples, num_labels, num_labels)
        found = accuracy(matrix), macro_f1(matrix)
        resampled = accuracy(drawn), macro_f1(drawn)
        by_domain[domain] = {"examples": count, **_with_intervals(found, resampled)}
        if domain in averaged:
            means.append(found)
            samples.append(resampled)
    average = _with_intervals(np.mean(means, axis=0), np.mean(samples, axis=0))
    return {"domains": by_domain, "average": average}


def accuracy_of_kept(domains: Mapping[str, Predictions], kept: Mapping[str, NDArray[np.bool_]]) -> float | None:
    """Plain mean over domains of the accuracy on the rows that `kept` marks (N,); None where it marks none."""
    found = [float((p.truth == p.predicted)[kept[d]].mean()) for d, p in domains.items() if kept[d].any()]
    return float(np.mean(found)) if found else None


def _with_intervals(values: Any, samples: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value, sample in zip(("accuracy", "macro_f1"), values, samples, strict=True):
        low, high = np.percentile(sample, [2.5, 97.5])
        found[name] = float(value)
        found[f"{name}_interval"] = [float(low), float(high)]
    return found
