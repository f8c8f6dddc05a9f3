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
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Predictions:
    """True and predicted classes of one model on one domain, with its confidence and its costs."""

    truth: Ints | Flags  # (N,); (N, M) bool, if a text may have several labels
    predicted: Ints | Flags  # the same
    confidence: Floats  # (N,), the probability of the predicted class, or that all of several answers are right
    costs: dict[str, Any] = field(default_factory=dict)  # parameters, bytes, latency

    @property
    def right(self) -> Flags:
        """Whether each text has the right class, or exactly the right labels: (N,)."""
        same = np.asarray(self.truth == self.predicted)
        return same if same.ndim == 1 else np.asarray(same.all(-1))


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


def micro_f1(truth: Flags, predicted: Flags) -> float:
    """2 · right / (true + predicted) over all texts, (N, M), or of one label, (N,); 0 if no text has any."""
    return float(2 * (truth & predicted).sum() / max(1, truth.sum() + predicted.sum()))


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

    With Wilson's intervals for other examples of these domains. If a text may have several labels, accuracy is the
    share with exactly the right ones, and micro-F1 stands beside it; where labels have under ten texts, the interval of
    macro-F1 is too short.
    """
    if any(p.truth.ndim > 1 for p in domains.values()):
        return {
            "domains": {
                domain: {"examples": len(p.truth), **_scores_of_several([p])} for domain, p in sorted(domains.items())
            },
            "average": _scores_of_several([domains[domain] for domain in sorted(averaged)]),
        }
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


def _scores_of_several(parts: Sequence[Predictions]) -> dict[str, Any]:
    """Scores of models of texts that may have several labels, as plain means over domains."""
    right, counts = [float(p.right.mean()) for p in parts], [len(p.truth) for p in parts]
    answers = [np.stack([p.truth, p.predicted]).astype(np.int64) for p in parts]  # (2, N, M)
    by_label = [(np.prod(both, axis=0), both.sum(0)) for both in answers]  # hits and sizes, (N, M) each
    micro = [_f1(hits.sum(1, keepdims=True), sizes.sum(1, keepdims=True)) for hits, sizes in by_label]
    macro = [_f1(hits[:, sizes.any(0)], sizes[:, sizes.any(0)]) for hits, sizes in by_label]
    return {
        "accuracy": float(np.mean(right)),
        "accuracy_interval": accuracy_interval(right, counts),
        "micro_f1": float(np.mean([f1 for f1, *_ in micro])),
        "micro_f1_interval": _f1_interval(micro),
        "macro_f1": float(np.mean([f1 for f1, *_ in macro])),
        "macro_f1_interval": _f1_interval(macro),
    }


def _f1(hits: Ints, sizes: Ints) -> tuple[float, float, float]:
    """Mean F1 = 2 · hits / sizes over G groups of labels; the same with more right and wrong texts, and its variance.

    Over other texts, by the delta method. As in `statistics.accuracy_interval`, Z²/2 right and wrong texts of the mean
    size are added, divided among the groups as their sizes are. 1 where there is no label to find, and none was given.

    Args:
        hits: (N, G), labels that a text has and was given.
        sizes: (N, G), labels that it has, and those that it was given.
    """
    count, totals = len(sizes), sizes.sum(0)
    if not totals.sum():
        right = (count + Z**2 / 2) / (count + Z**2)
        return 1.0, right, right * (1 - right) / count
    size, added = totals.sum() / count, Z**2 / 2 * totals / totals.sum()
    grown = totals + 2 * added * size
    f1 = (2 * hits.sum(0) + added * size) / grown
    slopes = ((2 * hits - f1 * sizes) / grown).mean(1)  # (N,), what a text adds to the mean
    of_added = added * (f1**2 + (1 - f1) ** 2) * (size / grown / len(grown)) ** 2
    variance = (np.sum(slopes**2) + of_added.sum()) * (count + Z**2) / count
    return float(np.mean(2 * hits.sum(0) / totals.clip(1))), float(f1.mean()), float(variance)


def _f1_interval(parts: Sequence[tuple[float, float, float]]) -> list[float]:
    """Wilson's interval for the plain mean of what `_f1` says of several domains."""
    f1, shrunk, variance = (np.mean(column) for column in zip(*parts, strict=True))
    return wilson(float(f1), shrunk * (1 - shrunk) * len(parts) / variance)


def accuracy_of_kept(domains: Mapping[str, Predictions], kept: Mapping[str, NDArray[np.bool_]]) -> float | None:
    """Plain mean over domains of the accuracy on the `kept` rows, (N,) bool by domain; None if there are none."""
    means = [float(p.right[kept[d]].mean()) for d, p in domains.items() if kept[d].any()]
    return float(np.mean(means)) if means else None
