"""Probabilities of the labels as data: what a large model has answered, in the column `probabilities` or
`teacher_label`.
"""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metakd.data.schema import Example, SoftLabel
from metakd.utils.errors import listed, shown

SUM_ERROR = 0.01  # how far probabilities may be from a sum of 1, as people round them; they are then divided by it


def parse_soft_label(probabilities: Any, teacher_label: Any, order: Sequence[str]) -> tuple[SoftLabel, bool]:
    """The labels and probabilities of a row, empty if both columns are, and whether they are a `teacher_label`.

    Args:
        probabilities: A mapping from label, or a list in the order of `order`; also as JSON text.
        teacher_label: One label, used where there are no probabilities.
        order: The labels of lists.

    Raises:
        ValueError: Says what is wrong.
    """
    if isinstance(probabilities, str) and probabilities.strip():
        try:
            probabilities = json.loads(probabilities)
        except (ValueError, RecursionError):
            raise ValueError(f"probabilities: neither a mapping nor a list: {shown(probabilities)}") from None
    if probabilities is None or isinstance(probabilities, str):
        return (((teacher_label, 1.0),), True) if teacher_label else ((), False)
    probabilities = probabilities.tolist() if hasattr(probabilities, "tolist") else probabilities
    if isinstance(probabilities, list | tuple):
        if len(probabilities) != len(order):
            named = f"--probability-labels names {len(order)}" if order else "--probability-labels names none"
            raise ValueError(f"probabilities: a list of {len(probabilities)}, but {named}")
        probabilities = dict(zip(order, probabilities, strict=True))
    if not isinstance(probabilities, Mapping):
        raise ValueError(f"probabilities: expected a mapping from label, or a list, found {shown(probabilities)}")
    known = {str(name).strip(): value for name, value in probabilities.items() if value is not None}
    if bad := [value for value in known.values() if not _is_probability(value)]:
        raise ValueError(f"probabilities: expected numbers from 0 to 1, found {listed(list(map(str, bad)))}")
    total = math.fsum(known.values())
    if abs(total - 1) > SUM_ERROR:
        raise ValueError(f"probabilities: sum to {total:.4g}, not 1")
    return tuple((sys.intern(name), float(value) / total) for name, value in known.items()), False


def _is_probability(value: Any) -> bool:
    return type(value) is not bool and isinstance(value, int | float | np.number) and bool(0 <= value <= 1 + SUM_ERROR)


def likeliest(soft_label: SoftLabel) -> str:
    """The label with the highest probability; the first of several."""
    return max(soft_label, key=lambda pair: pair[1])[0]


def accuracy_of_hard_labels(examples: Sequence[Example]) -> float | None:
    """How often a `teacher_label` is the gold label, by Laplace's rule of succession; None without rows to tell."""
    right = [e.label == e.soft_label[0][0] for e in examples if e.gold and e.hard]
    return (sum(right) + 1) / (len(right) + 2) if right else None


def soft_label_columns(
    examples: Sequence[Example], label_ids: Mapping[str, int], accuracy: float | None, gold_weight: float
) -> dict[str, NDArray[np.float32]]:
    """q and β of each example: what `losses.soft_label_loss` mixes.

    Args:
        examples: Rows of train, or windows of them.
        label_ids: The place of each of the M labels.
        accuracy: Of hard labels, which get this probability, and all others the same share of the rest; None: 1.
        gold_weight: β where there are both.

    Returns:
        `soft_labels` (N, M), one-hot in rows that have only a gold label, and `gold_weights` (N,): β, or 1 or 0 in rows
        that have only a gold or only a soft label.
    """
    q = np.zeros((len(examples), len(label_ids)), np.float32)
    beta = np.zeros(len(examples), np.float32)
    rest = 0.0 if accuracy is None else (1 - accuracy) / (len(label_ids) - 1)
    for row, e in enumerate(examples):
        beta[row] = (gold_weight if e.soft_label else 1.0) if e.gold else 0.0
        if e.hard:
            q[row] = rest
            q[row, label_ids[e.soft_label[0][0]]] = 1.0 if accuracy is None else accuracy
        elif e.soft_label:
            for name, probability in e.soft_label:
                q[row, label_ids[name]] = probability
        elif e.label:
            q[row, label_ids[e.label]] = 1.0
    return {"soft_labels": q, "gold_weights": beta}
