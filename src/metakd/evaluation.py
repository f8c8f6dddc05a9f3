"""Scores of a domain with their intervals, size, latency, and the TF-IDF rival."""

from __future__ import annotations

import contextlib
import pickle  # nosec B403
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from metakd.examples import Example
from metakd.progress import notice

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

LATENCY_TEXTS = 100
LATENCY_WARMUP = 10
BUSY = 100  # times a second, and so many at least, that other work took a core away while texts were timed


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


def latency(classify: Callable[[Example], Any], examples: Sequence[Example]) -> dict[str, float]:
    """Milliseconds for one text at a time, tokenising included: median and 95th percentile over 100 texts."""
    chosen = [examples[i % len(examples)] for i in range(LATENCY_WARMUP + LATENCY_TEXTS)]
    times = []
    with _told_if_busy():
        for example in chosen:
            started = time.perf_counter()
            classify(example)
            times.append(1000 * (time.perf_counter() - started))
    median, p95 = np.percentile(times[LATENCY_WARMUP:], [50, 95])
    return {"median": round(float(median), 3), "p95": round(float(p95), 3)}


@contextlib.contextmanager
def _told_if_busy() -> Iterator[None]:
    """Say so where other work took the cores away from what is timed inside, which takes it longer."""
    started, before = time.perf_counter(), _times_put_aside()
    yield
    if _times_put_aside() - before > BUSY * max(1, time.perf_counter() - started):
        notice(
            "other work had this machine's cores while texts were timed, so the latencies are too long; "
            "time them again when it is idle"
        )


def _times_put_aside() -> int:
    """How often this process had to leave a core to others, 0 where the system does not count it."""
    with contextlib.suppress(ImportError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    return 0


def domain_probe(vectors: Floats, domains: Ints) -> float | None:
    """Cross-validated accuracy of a linear classifier of the domain; None where a domain has fewer than two rows.

    vectors: (N, H); domains: (N,). Near the commonest domain's share, the vectors are blind to the domain.
    """
    counts = np.unique(domains, return_counts=True)[1]
    if len(counts) < 2 or counts.min() < 2:
        return None
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(min(5, int(counts.min())), shuffle=True, random_state=0)
    return float(cross_val_score(probe, vectors, domains, cv=folds).mean())


class TfidfRival:
    """TF-IDF of word 1- and 2-grams into logistic regression: what labels alone give, without a language model."""

    def __init__(self, examples: Sequence[Example]) -> None:
        labels = [example.label for example in examples]
        classifier = LogisticRegression(max_iter=1000) if len(set(labels)) > 1 else DummyClassifier()
        pattern = r"(?u)\w+|[^\w\s]+"
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=pattern)
        self.pipeline: Pipeline = make_pipeline(vectorizer, classifier)
        self.pipeline.fit([self._text(example) for example in examples], labels)

    @staticmethod
    def _text(example: Example) -> str:
        return example.text if example.text_pair is None else f"{example.text} {example.text_pair}"

    def predict(self, examples: Sequence[Example]) -> list[str]:
        return [str(label) for label in self.pipeline.predict([self._text(example) for example in examples])]

    def confidence(self, examples: Sequence[Example]) -> Floats:
        """The probability of the predicted class: (N,)."""
        return np.asarray(self.pipeline.predict_proba([self._text(example) for example in examples])).max(-1)

    def predict_one(self, example: Example) -> str:
        return self.predict([example])[0]

    def size(self) -> dict[str, int]:
        """Weights of the classifier, and bytes of the whole pipeline as Python would store it."""
        coefficients = getattr(self.pipeline[-1], "coef_", np.zeros(0))
        return {"parameters": int(coefficients.size), "bytes": len(pickle.dumps(self.pipeline))}  # never loaded
