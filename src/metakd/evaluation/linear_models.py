"""Linear classifiers: TF-IDF, the baseline without a language model, and the domain probe."""

import pickle  # nosec B403
import random
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from metakd.data.labels import several_columns
from metakd.data.schema import Example
from metakd.data.splits import by_domain
from metakd.evaluation.metrics import Floats, Ints
from metakd.inference.thresholds import HALF

C_TRIED, FOLDS = (1, 3, 10, 30, 100), 5
TUNING_ROWS, LEAST_TUNING_ROWS = 5_000, 50  # to choose by: of all domains together, but so many of each
MOST_ROWS = 50_000  # to train on; more, drawn by seed, take minutes and gigabytes
ONE_DOMAIN, ALL_DOMAINS = "own domain", "all domains"


class TfidfBaseline:
    """TF-IDF of word 1- and 2-grams into logistic regression; a smaller `c` regularises more.

    If a text may have several labels, there is one such classifier for each.
    """

    def __init__(self, examples: Sequence[Example], c: float = 1) -> None:
        names, labels = _targets(examples)
        parts = _count(), TfidfTransformer(sublinear_tf=True), _classifier(labels, c)
        self.pipeline: Pipeline = make_pipeline(*parts).fit(_texts(examples), labels)
        self.names: NDArray[Any] = self.pipeline[-1].classes_ if names is None else names

    def predict(self, examples: Sequence[Example]) -> list[Any]:
        """The label of each text, or (N, M) 0 and 1 for each of several."""
        return list(self.pipeline.predict(_texts(examples)).tolist())

    def answers(self, examples: Sequence[Example], classes: Sequence[str] | None = None) -> tuple[NDArray[Any], Floats]:
        """The probabilities of the `classes`, by default all, and their names: (M,), (N, M)."""
        places = np.flatnonzero(np.isin(self.names, self.names if classes is None else [*classes]))
        if not examples:  # which scikit-learn refuses
            return self.names[places], np.zeros((0, len(places)))
        p = np.asarray(self.pipeline.predict_proba(_texts(examples)))[:, places]
        return self.names[places], p

    @cached_property
    def size(self) -> dict[str, int]:
        """Weights of the classifier, and bytes of the whole pipeline as Python would store it."""
        last = self.pipeline[-1]
        coefficients = [getattr(each, "coef_", np.zeros(0)) for each in getattr(last, "by_label", [last])]
        sizes = {"parameters": sum(int(each.size) for each in coefficients)}
        return sizes | {"bytes": len(pickle.dumps(self.pipeline))}  # never loaded


def _count() -> CountVectorizer:
    return CountVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\w+|[^\w\s]+")


class _OneForEachLabel(ClassifierMixin, BaseEstimator):
    """A classifier for each of M labels, of which a text may have several; each is given above one half."""

    def __init__(self, c: float) -> None:
        self.c = c

    def fit(self, vectors: Any, labels: Ints) -> Self:
        self.classes_ = np.arange(labels.shape[1])
        self.by_label = [_classifier(column, self.c).fit(vectors, column) for column in labels.T]
        return self

    def predict_proba(self, vectors: Any) -> Floats:
        """(N, M)."""
        p = np.zeros((vectors.shape[0], len(self.by_label)))
        for place, each in enumerate(self.by_label):
            if 1 in each.classes_:
                p[:, place] = each.predict_proba(vectors)[:, -1]
        return p

    def predict(self, vectors: Any) -> Ints:
        return (self.predict_proba(vectors) > HALF).astype(np.int64)


def _targets(examples: Sequence[Example]) -> tuple[NDArray[Any] | None, NDArray[Any]]:
    """The label of each text, (N,); or if it may have several, all labels, (M,), and 1 for each that it has, (N, M)."""
    if all(e.labels is None for e in examples):
        return None, np.array([e.label for e in examples])
    names = sorted({label for e in examples for label in e.classes})
    return np.array(names, str), several_columns(examples, {name: i for i, name in enumerate(names)}).astype(int)


def _classifier(labels: NDArray[Any], c: float) -> Any:
    """Logistic regression with the solver that is fastest on sparse rows."""
    if labels.ndim > 1:
        return _OneForEachLabel(c)
    classes = len(set(labels))
    if classes < 2:
        return DummyClassifier()
    solver: dict[str, Any] = {"solver": "liblinear", "dual": True} if classes == 2 else {"solver": "sag", "tol": 1e-3}
    return LogisticRegression(C=c, max_iter=1000, random_state=0, **solver)


def _texts(examples: Sequence[Example]) -> list[str]:
    return [e.text if e.text_pair is None else f"{e.text} {e.text_pair}" for e in examples]


# --- What TF-IDF learns from


class Choice(NamedTuple):
    """What cross-validation has chosen for a domain's TF-IDF."""

    trained_on: str  # ONE_DOMAIN or ALL_DOMAINS
    domain_c: int  # the best value of C for the domain's text
    pooled_c: int  # and for all domains'

    @property
    def c(self) -> int:
        return self.domain_c if self.trained_on == ONE_DOMAIN else self.pooled_c


def choose_tfidf(train: Sequence[Example], seed: int) -> dict[str, Choice]:
    """For each domain, whether its text or all domains' gives the better TF-IDF, and the best C for each.

    By accuracy on rows that were left out, in FOLDS folds of the training rows, of a draw if there are many.
    """
    domains = by_domain(train)
    most = max(TUNING_ROWS // len(domains), LEAST_TUNING_ROWS)
    drawn = {domain: draw_evenly(rows, most, seed) for domain, rows in sorted(domains.items())}
    rows = [example for examples in drawn.values() for example in examples]
    counts, (_, labels) = _count().fit_transform(_texts(rows)), _targets(rows)
    folds = np.concatenate([np.arange(len(examples)) % FOLDS for examples in drawn.values()])
    pooled, domain_of = right_when_left_out(counts, labels, folds), np.array([example.domain for example in rows])
    best, several, choices = int(pooled.mean(1).argmax()), len(drawn) > 1, dict[str, Choice]()
    for domain in drawn:
        place = np.flatnonzero(domain_of == domain)
        alone = right_when_left_out(counts[place], labels[place], folds[place]) if several else pooled
        accuracies = alone.mean(1)
        is_pooled = several and pooled[best, place].mean() >= accuracies.max()
        trained_on = ALL_DOMAINS if is_pooled else ONE_DOMAIN
        choices[domain] = Choice(trained_on, C_TRIED[int(accuracies.argmax())], C_TRIED[best])
    return choices


def draw_evenly(examples: Sequence[Example], most: int, seed: int) -> list[Example]:
    """Up to `most` examples in the order of domain and label, with as large a share of each, drawn by seed."""
    draw, count = random.Random(seed), min(most, len(examples))
    ordered = sorted(examples, key=lambda example: (example.domain, example.label, draw.random()))
    return [ordered[i * len(ordered) // count] for i in range(count)]


def right_when_left_out(counts: csr_matrix, labels: NDArray[Any], folds: Ints) -> NDArray[np.bool_]:
    """Which rows TF-IDF classifies correctly after learning from the other folds, for each value of C.

    counts: (N, words); labels, folds: (N,) -> (len(C_TRIED), N). Of (N, M) labels, all have to be right.
    """
    right = np.zeros((len(C_TRIED), len(labels)), dtype=bool)
    for fold in np.unique(folds):
        rest, left_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if not len(rest):
            continue
        known, scale = np.flatnonzero(counts[rest].getnnz(axis=0)), TfidfTransformer(sublinear_tf=True)
        train, test = scale.fit_transform(counts[rest][:, known]), scale.transform(counts[left_out][:, known])
        for i, c in enumerate(C_TRIED):
            predicted = _classifier(labels[rest], c).fit(train, labels[rest]).predict(test)
            same = predicted == labels[left_out]
            right[i, left_out] = same if same.ndim == 1 else same.all(-1)
    return right


# --- What vectors show of the domain


def domain_probe(vectors: Floats, domains: Ints) -> float | None:
    """Cross-validated accuracy of a linear classifier of the domain; None if a domain has fewer than two rows.

    vectors: (N, H); domains: (N,). An accuracy near the share of the largest domain means that the vectors do not
    show the domain.
    """
    counts = np.unique(domains, return_counts=True)[1]
    if len(counts) < 2 or counts.min() < 2:
        return None
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(min(5, int(counts.min())), shuffle=True, random_state=0)
    return float(cross_val_score(probe, vectors, domains, cv=folds).mean())
