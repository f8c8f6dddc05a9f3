"""Accuracy and macro-F1 of each domain and on average, with 95 % intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from metakd.evaluation.statistics import Z, accuracy_interval, wilson

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


def macro_f1_interval(matrices: Sequence[Ints]) -> list[float]:
    """Wilson's interval for the plain mean of the macro-F1 of K (M, M) matrices.

    Its size gives a share the variance of that mean. As for an accuracy (`statistics.accuracy_interval`), both are
    computed with Z²/2 more right and as many wrong examples in each matrix, divided among its classes as its own.
    """
    scores, variances = zip(*map(_shrunken_f1, matrices), strict=True)
    mean, variance = np.mean(scores), np.sum(variances) / len(matrices) ** 2
    return wilson(float(np.mean([macro_f1(matrix) for matrix in matrices])), mean * (1 - mean) / variance)


def _shrunken_f1(matrix: Ints) -> tuple[float, float]:
    """Macro-F1 with more right and wrong examples, and its variance: Σ c_ij (∂F/∂c_ij)², by the delta method."""
    support = matrix.sum(1) + matrix.sum(0)
    matrix, share = matrix[np.ix_(support > 0, support > 0)], support[support > 0] / support.sum()
    if len(share) == 1:  # of a single class there is only a share of right examples
        count = matrix.sum()
        right = (count + Z**2 / 2) / (count + Z**2)
        return right, right * (1 - right) / count
    wrong = np.outer(share, share) * (1 - np.eye(len(share)))
    counts = matrix + Z**2 / 2 * (np.diag(share) + wrong / wrong.sum())
    supports = counts.sum(1) + counts.sum(0)
    lost = 2 * np.diagonal(counts) / supports**2  # of a class's F1 by one more example in its support
    slope = (2 * np.diag(1 / supports) - lost[:, None] - lost) / len(share)
    return float(macro_f1(counts)), float(np.sum(counts * slope**2) * counts.sum() / matrix.sum())


def score(domains: Mapping[str, Predictions], averaged: set[str], num_labels: int) -> dict[str, Any]:
    """Accuracy and macro-F1 of one model, for each domain and as the plain mean of the `averaged` domains.

    With Wilson's intervals for other examples of these domains.
    """
    matrices = {
        domain: confusion_matrix(p.truth, p.predicted, labels=range(num_labels)) for domain, p in domains.items()
    }
    return {
        "domains": {
            domain: {"examples": int(matrix.sum()), **_scores([matrix])} for domain, matrix in sorted(matrices.items())
        },
        "average": _scores([matrices[domain] for domain in sorted(averaged)]),
    }


def _scores(matrices: Sequence[Ints]) -> dict[str, Any]:
    accuracies, f1s = ([float(function(matrix)) for matrix in matrices] for function in (accuracy, macro_f1))
    return {
        "accuracy": float(np.mean(accuracies)),
        "accuracy_interval": accuracy_interval(accuracies, [int(matrix.sum()) for matrix in matrices]),
        "macro_f1": float(np.mean(f1s)),
        "macro_f1_interval": macro_f1_interval(matrices),
    }


def accuracy_of_kept(domains: Mapping[str, Predictions], kept: Mapping[str, NDArray[np.bool_]]) -> float | None:
    """Plain mean over domains of the accuracy on the `kept` rows, (N,) bool by domain; None if there are none."""
    means = [float((p.truth == p.predicted)[kept[d]].mean()) for d, p in domains.items() if kept[d].any()]
    return float(np.mean(means)) if means else None
