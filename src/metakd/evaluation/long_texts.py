"""How far a model has to read long texts: the confidence from which no further window is read."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from metakd.data.schema import Example
from metakd.evaluation.metrics import Floats
from metakd.inference.long_texts import Model, Probabilities, combined, confidences

WANTED = 0.6  # share of the change, from the first window's answers to those of all, that is kept
TRIED = 101  # thresholds, at quantiles of the confidences


class Steps(NamedTuple):
    """A model's answers to one text after each of its W windows."""

    confidence: Floats  # (W,) [inference.long_texts.confidences]
    distance: Floats  # (W,), in 0..1, from the answer after all of them


def after_each_window(model: Model, examples: Sequence[Example]) -> list[Steps]:
    """The answers to those of the examples of which the model reads several windows; their labels do not matter."""
    windows = model.answers(examples).windows.values()
    return [Steps(confidences(log_p).astype(np.float64), distances(combined(log_p))) for log_p in windows]


def distances(p: Probabilities) -> Floats:
    """The total variation distance of each row from the last: half the sum of the differences. (W, M) -> (W,)."""
    return np.abs(p - p[-1]).sum(-1, dtype=np.float64) / 2


def choose_enough(steps: Sequence[Steps]) -> float | None:
    """The least confidence that ends the reading of a text, at which, and above which, WANTED of the change is kept.

    The change is the sum of the distances between the answers by the first window and by all; what is kept is 1 minus
    the share that `change_left` leaves. Right answers are not counted: those that change are few. Returns None, with
    which all windows are read, if nothing less keeps it.
    """
    if not steps:
        return None
    change = sum(each.distance[0] for each in steps)
    tried = np.quantile(np.concatenate([each.confidence for each in steps]), np.linspace(1, 0, TRIED)).round(4)
    chosen = None
    for enough in tried.tolist():
        if change_left(steps, enough) > (1 - WANTED) * change:
            break
        chosen = enough
    return chosen


def change_left(steps: Sequence[Steps], enough: float) -> float:
    """The distance that is left, over all texts, if none is read further once the confidence is `enough`."""
    return float(sum(each.distance[_last_read(each, enough)] for each in steps))


def _last_read(steps: Steps, enough: float) -> int:
    sure = np.flatnonzero(steps.confidence >= enough)
    return int(sure[0]) if len(sure) else -1
