"""Which of several labels a text is given: those with a probability above a threshold, chosen on dev by F1.

N texts, M labels; p are a model's probabilities. Each label has a threshold, near the model's where few texts have it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from metakd.data.labels import several_columns
from metakd.data.schema import Example, Inputs
from metakd.evaluation.calibration import FEWEST, FOLDS, folds
from metakd.evaluation.metrics import Flags, Floats, micro_f1
from metakd.inference.thresholds import HALF

TRIED = np.arange(1, 100) / 100
PULL = 20  # texts with a label that the model's threshold counts as
DIGITS = 4


class Thresholds(NamedTuple):
    """Those of a model's labels."""

    by_label: dict[str, float]
    of_texts: Mapping[Inputs, Floats]  # those for a text that they were chosen on, chosen without it: (M,)

    def of(self, examples: Sequence[Example]) -> Floats:
        """The thresholds for each text, (N, M)."""
        usual = np.array([*self.by_label.values()])
        return np.array([self.of_texts.get(e.inputs, usual) for e in examples]).reshape(len(examples), len(usual))


ThresholdsByFleet = Mapping[str, Mapping[str, Thresholds]]  # by fleet and domain


def as_entry(thresholds: ThresholdsByFleet) -> dict[str, Any]:
    """The entry of a run's `calibration`: by fleet, domain and label; none if there are none."""
    by_label = {name: {domain: each.by_label for domain, each in fleet.items()} for name, fleet in thresholds.items()}
    return {"thresholds": by_label} if by_label else {}


def choose_thresholds(examples: Sequence[Example], labels: Sequence[str], p: Floats, seed: int) -> Thresholds:
    """One half for fewer than FEWEST texts, or where cross-fitting by `seed` finds no better micro-F1 than by that.

    Args:
        examples: Labelled texts that the model has not learnt from, each once.
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
    if micro_f1(truth, p > cross_fitted) <= micro_f1(truth, p > HALF):
        return halves
    chosen, read = fit_thresholds(p, truth).round(DIGITS).tolist(), [e.inputs for e in examples]
    return Thresholds(dict(zip(labels, chosen, strict=True)), dict(zip(read, cross_fitted, strict=True)))


def fit_thresholds(p: Floats, truth: Flags) -> Floats:
    """The threshold of each label, (M,).

    That of the greatest F1, τ_j, drawn to that of the greatest micro-F1 of all labels, τ: (n_j τ_j + PULL τ) / (n_j +
    PULL), where n_j texts have the label.

    Args:
        p: (N, M).
        truth: (N, M), which labels a text has.
    """
    counts, each = truth.sum(0), np.array([fit_threshold(*column) for column in zip(p.T, truth.T, strict=True)])
    return np.asarray((counts * each + PULL * fit_threshold(p, truth)) / (counts + PULL))


def fit_threshold(p: Floats, truth: Flags) -> float:
    """One threshold for all: of those of TRIED with the greatest micro-F1, the nearest to one half.

    `p` and `truth` are those of `fit_thresholds`, or of one label: (N,).
    """
    f1 = np.array([micro_f1(truth, p > tried) for tried in TRIED])
    best = TRIED[f1 == f1.max()]
    return float(best[np.abs(best - HALF).argmin()])
