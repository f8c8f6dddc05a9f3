"""How far a model has to read long texts: the confidence from which further windows hardly ever change its answer."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metakd.data.schema import Example
from metakd.evaluation.metrics import Floats
from metakd.inference.long_texts import Model, combined, confidences

WANTED = 0.75  # share of what all windows gain over the first that reading fewer has to keep
TRIED = 101  # thresholds, at quantiles of the confidences


class Steps(NamedTuple):
    """A model's answers to one text after each of its W windows."""

    confidence: Floats  # (W,) [inference.long_texts.confidences]
    right: NDArray[np.bool_]  # (W,)


def after_each_window(model: Model, examples: Sequence[Example]) -> list[Steps]:
    """The answers to those of the examples of which the model reads several windows."""
    steps, places = [], {label: place for place, label in enumerate(model.labels)}
    for row, log_p in model.answers(examples).windows.items():
        right = combined(log_p).argmax(-1) == places.get(examples[row].label)
        steps.append(Steps(confidences(log_p).astype(np.float64), right))
    return steps


def choose_enough(steps: Sequence[Steps]) -> float | None:
    """The least confidence that ends the reading of a text, at which, and above which, WANTED of the gain is kept.

    The gain is in right answers, of all windows over the first alone. Returns 0, with which the first window is enough,
    if there is none; None, with which all are read, if nothing less keeps it.
    """
    if not steps:
        return None
    first, whole = (sum(int(each.right[place]) for each in steps) for place in (0, -1))
    if whole <= first:
        return 0.0
    confidences = np.concatenate([each.confidence for each in steps])
    chosen = None
    for enough in np.quantile(confidences, np.linspace(1, 0, TRIED)).round(4).tolist():
        if right_answers(steps, enough) < first + WANTED * (whole - first):
            break
        chosen = enough
    return chosen


def right_answers(steps: Sequence[Steps], enough: float) -> int:
    """How many texts are classified correctly if none is read further once the confidence is `enough`."""
    return sum(int(each.right[_last_read(each, enough)]) for each in steps)


def _last_read(steps: Steps, enough: float) -> int:
    sure = np.flatnonzero(steps.confidence >= enough)
    return int(sure[0]) if len(sure) else -1
