"""Which of several labels a text is given: those with a probability above a threshold, chosen on dev by F1.

N texts, M labels; p are a model's probabilities. Each label has a threshold, near the model's where few texts have it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import f1_score

from metakd.data.labels import several_columns
from metakd.data.schema import Example
from metakd.evaluation.calibration import FEWEST, FOLDS, folds
from metakd.evaluation.metrics import Flags, Floats, Ints
from metakd.inference.long_texts import HALF

TRIED = np.arange(1, 100) / 100
PULL = 20  # texts with a label that the model's threshold counts as
DIGITS = 4


class Thresholds(NamedTuple):
    """Those of a model's labels."""

    by_label: dict[str, float]
    of_texts: Mapping[Example, Floats]  # those for a text that they were chosen on, chosen without it: (M,)

    def of(self, examples: Sequence[Example]) -> Floats:
        """The thresholds for each text, (N, M)."""
        usual = np.array([*self.by_label.values()])
        return np.array([self.of_texts.get(e, usual) for e in examples]).reshape(len(examples), len(usual))


ThresholdsByFleet = Mapping[str, Mapping[str, Thresholds]]  # by fleet and domain


def as_entry(thresholds: ThresholdsByFleet) -> dict[str, Any]:
    """The entry of `calibration` in results.json and fit.json: by fleet, domain and label; none if there are none."""
    by_label = {name: {domain: each.by_label for domain, each in fleet.items()} for name, fleet in thresholds.items()}
    return {"thresholds": by_label} if by_label else {}


def choose_thresholds(examples: Sequence[Example], labels: Sequence[str], p: Floats, seed: int) -> Thresholds:
    """One half for fewer than FEWEST texts, or where cross-fitting by `seed` finds no better micro-F1 than by that.

    Args:
        examples: Labelled texts that the model has not learnt from.
        labels: The model's, (M,).
        p: (N, M), 0 for a label that a text cannot have.
        seed: Draws FOLDS parts of the texts.
    """
    truth = several_columns(examples, {label: place for place, label in enumerate(labels)}) > 0
    halves = Thresholds(dict.fromkeys(labels, HALF), {})
    if len(examples) < FEWEST:
        return halves
    part, cross_fitted = folds(len(examples), seed), np.zeros(p.shape)
    for fold in range(FOLDS):
        cross_fitted[part == fold] = fit_thresholds(p[part != fold], truth[part != fold])
    of_halves, of_chosen = (
        f1_score(truth, p > least, average="micro", zero_division=0) for least in (HALF, cross_fitted)
    )
    if of_chosen <= of_halves:
        return halves
    chosen = fit_thresholds(p, truth).round(DIGITS).tolist()
    return Thresholds(dict(zip(labels, chosen, strict=True)), dict(zip(examples, cross_fitted, strict=True)))


def fit_thresholds(p: Floats, truth: Flags) -> Floats:
    """The threshold of each label, (M,).

    That of the greatest F1, τ_j, drawn to that of the greatest micro-F1 of all labels, τ: (n_j τ_j + PULL τ) / (n_j +
    PULL), where n_j texts have the label.

    Args:
        p: (N, M).
        truth: (N, M), which labels a text has.
    """
    counts, above = truth.sum(0), np.array([(p > tried).sum(0) for tried in TRIED])
    hits = np.array([(truth & (p > tried)).sum(0) for tried in TRIED])
    of_all = _best(hits.sum(1), above.sum(1) + counts.sum())
    each = np.array([_best(*columns) for columns in zip(hits.T, (above + counts).T, strict=True)])
    return np.asarray((counts * each + PULL * of_all) / (counts + PULL))


def _best(hits: Ints, sizes: Ints) -> float:
    """Of the thresholds with the greatest F1 = 2 · hits / sizes, the nearest to one half."""
    f1 = 2 * hits / sizes.clip(1)
    best = TRIED[f1 == f1.max()]
    return float(best[np.abs(best - HALF).argmin()])
