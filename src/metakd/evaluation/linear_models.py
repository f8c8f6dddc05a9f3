"""Linear classifiers: TF-IDF, the baseline without a language model, and the domain probe."""

import pickle  # nosec B403
from collections.abc import Sequence

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from metakd.data.schema import Example
from metakd.evaluation.metrics import Floats, Ints


class TfidfBaseline:
    """TF-IDF of word 1- and 2-grams into logistic regression."""

    def __init__(self, examples: Sequence[Example]) -> None:
        labels = [example.label for example in examples]
        classifier = LogisticRegression(max_iter=1000) if len(set(labels)) > 1 else DummyClassifier()
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\w+|[^\w\s]+")
        self.pipeline: Pipeline = make_pipeline(vectorizer, classifier).fit(_texts(examples), labels)

    def predict(self, examples: Sequence[Example]) -> list[str]:
        return [str(label) for label in self.pipeline.predict(_texts(examples))]

    def confidence(self, examples: Sequence[Example]) -> Floats:
        """The probability of the predicted class: (N,)."""
        return np.asarray(self.pipeline.predict_proba(_texts(examples))).max(-1)

    def size(self) -> dict[str, int]:
        """Weights of the classifier, and bytes of the whole pipeline as Python would store it."""
        coefficients = getattr(self.pipeline[-1], "coef_", np.zeros(0))
        return {"parameters": int(coefficients.size), "bytes": len(pickle.dumps(self.pipeline))}  # never loaded


def _texts(examples: Sequence[Example]) -> list[str]:
    return [e.text if e.text_pair is None else f"{e.text} {e.text_pair}" for e in examples]


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
