"""TF-IDF with logistic regression: the accuracy that labels alone give, without a language model."""

import pickle  # nosec B403
from collections.abc import Sequence

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from metakd.data.schema import Example
from metakd.evaluation.metrics import Floats


class TfidfBaseline:
    """TF-IDF of word 1- and 2-grams into logistic regression."""

    def __init__(self, examples: Sequence[Example]) -> None:
        labels = [example.label for example in examples]
        classifier = LogisticRegression(max_iter=1000) if len(set(labels)) > 1 else DummyClassifier()
        pattern = r"(?u)\w+|[^\w\s]+"
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=pattern)
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
