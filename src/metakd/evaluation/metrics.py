"""Accuracy and macro-F1 of a domain, with bootstrap intervals."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Predictions:
    """True and predicted classes of one model on one domain, with its confidence and its costs."""

    truth: Ints  # (N,)
    predicted: Ints  # (N,)
    confidence: Floats  # (N,), the probability of the predicted class
    costs: dict[str, Any] = field(default_factory=dict)  # parameters, bytes, latency


def accuracy(matrix: Ints) -> Floats:
    """Share on the diagonal of (..., M, M) confusion matrices -> (...)."""
    return np.trace(matrix, axis1=-2, axis2=-1) / matrix.sum((-2, -1))


def macro_f1(matrix: Ints) -> Floats:
    """Mean F1 over the classes that occur among truths or predictions, as scikit-learn's; (..., M, M) -> (...)."""
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    support = matrix.sum(-1) + matrix.sum(-2)  # 2·tp + fp + fn
    present = support > 0
    f1 = np.divide(2 * hits, support, out=np.zeros(hits.shape), where=present)
    return f1.sum(-1) / present.sum(-1)


def score(
    domains: Mapping[str, Predictions], averaged: set[str], num_labels: int, resamples: int, seed: int
) -> dict[str, Any]:
    """Accuracy and macro-F1 of one model, for each domain and as the plain mean of the `averaged` domains.

    95 % intervals are percentiles over bootstrap resamples of the examples, drawn within each domain.
    """
    by_domain, means, samples = {}, [], []
    for index, (domain, predictions) in enumerate(sorted(domains.items())):
        matrix = confusion_matrix(predictions.truth, predictions.predicted, labels=range(num_labels))
        count = int(matrix.sum())
        # Resampling N examples with replacement draws the counts of the confusion matrix from a multinomial.
        drawn = np.random.default_rng([seed, index]).multinomial(count, matrix.ravel() / count, resamples)
        drawn = drawn.reshape(resamples, num_labels, num_labels)
        values, resampled = ((accuracy(m), macro_f1(m)) for m in (matrix, drawn))
        by_domain[domain] = {"examples": count, **_with_intervals(values, resampled)}
        if domain in averaged:
            means.append(values)
            samples.append(resampled)
    return {"domains": by_domain, "average": _with_intervals(np.mean(means, axis=0), np.mean(samples, axis=0))}


def accuracy_of_kept(domains: Mapping[str, Predictions], kept: Mapping[str, NDArray[np.bool_]]) -> float | None:
    """Plain mean over domains of the accuracy on the `kept` rows, (N,) bool by domain; None if there are none."""
    means = [float((p.truth == p.predicted)[kept[d]].mean()) for d, p in domains.items() if kept[d].any()]
    return float(np.mean(means)) if means else None


def _with_intervals(values: Any, samples: Any) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    for name, value, sample in zip(("accuracy", "macro_f1"), values, samples, strict=True):
        scores |= {name: float(value), f"{name}_interval": np.percentile(sample, [2.5, 97.5]).tolist()}
    return scores
