"""How well a linear classifier predicts the domain from a model's vectors."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from metakd.evaluation.metrics import Floats, Ints


def domain_probe(vectors: Floats, domains: Ints) -> float | None:
    """Cross-validated accuracy of a linear classifier of the domain; None where a domain has fewer than two rows.

    vectors: (N, H); domains: (N,). An accuracy near the share of the largest domain means
    that the vectors say nothing about the domain.
    """
    counts = np.unique(domains, return_counts=True)[1]
    if len(counts) < 2 or counts.min() < 2:
        return None
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(min(5, int(counts.min())), shuffle=True, random_state=0)
    return float(cross_val_score(probe, vectors, domains, cv=folds).mean())
