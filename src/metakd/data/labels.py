"""What columns say of a text's labels: several labels, or probabilities as a large model has answered."""

import ast
import contextlib
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metakd.data.faults import as_name, is_empty, name_fault
from metakd.data.schema import Example, SoftLabel
from metakd.utils.errors import listed, shown

SUM_ERROR = 0.01  # how far probabilities may be from a sum of 1, as people round them; they are then divided by it
NO_LABEL = -1  # among numbers of labels
ONE_EACH = (
    "if each text has one label, add --columns label=COLUMN, and if several stand in one string, also what is between "
    "them, as in --label-separator ';'"
)
WITHOUT_COMMA = re.compile(r"""['"]\s+['"]""")  # between the strings of a list, as NumPy prints it
SEPARATORS = ";|,/"  # that tables write between labels, the likeliest first
YES, NO = ("1", "true", "yes"), ("0", "false", "no", "")  # in a column for one label


@dataclass(frozen=True)
class SeveralLabels:
    """How tables say which labels a text has, if it may have several: as lists in the column `labels`, or otherwise."""

    columns: tuple[str, ...] = ()  # of 0 and 1, one for each label
    separator: str = ""  # between the labels in the column `label`

    def fields(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of a table with several labels, for the field names of one with single labels."""
        field = (*self.columns,) or (("label",) if self.separator else ("labels",))
        return tuple(f for name in names for f in (field if name == "label" else (name,)))

    def parse(self, value: Any, values: Mapping[str, Any]) -> list[Any]:
        """The labels of a row, not checked as names yet.

        Args:
            value: Of the column `labels`, or of the column `label` with a separator.
            values: All values of the row.

        Raises:
            ValueError: Says what is wrong.
        """
        if self.columns:
            return [name for name in self.columns if _is_yes(name, values.get(name))]
        if self.separator:
            whole = as_name("" if value is None else value)
            if whole is None:
                raise ValueError(f"expected labels with {self.separator!r} between them, found {shown(value)}")
            return [part for part in whole.split(self.separator) if part.strip()]
        if isinstance(value, str):
            value = _list_in_text(value)
        value = value.tolist() if hasattr(value, "tolist") else value
        if not isinstance(value, list | tuple):
            raise ValueError(f"expected a list of labels, which may be empty, found {shown(value)}; {ONE_EACH}")
        if len({*map(str, value)}) < len(value) and all(type(name) is not str and name in (0, 1) for name in value):
            raise ValueError(f"{shown([*value])} is 0 or 1 for each label; write names, or a column for each label")
        return [*value]


def _list_in_text(text: str) -> Any:
    with contextlib.suppress(ValueError):
        if not WITHOUT_COMMA.search(text):
            return _written_out(text)
    raise ValueError(f"expected a list of labels, found {shown(text)}; {ONE_EACH}")


def _written_out(text: str) -> Any:
    """A list or mapping as JSON, or as Python writes it, which is what pandas puts into CSV; ValueError for others."""
    for read in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return read(text)
    raise ValueError("neither")


def joined_labels(labels: Sequence[str]) -> tuple[str, list[str]]:
    """A separator of labels in one string, and those that look joined by it; none if there are none."""
    for separator in SEPARATORS:
        parts = {label: [part.strip() for part in label.split(separator)] for label in labels}
        joined = [label for label, each in parts.items() if len(each) > 1 and all(each)]
        shared = Counter(part for each in parts.values() for part in each)
        if joined and all(shared[part] > 1 for part in parts[joined[0]]):
            return separator, joined
    return "", []


def separator_faults(name: str, examples: Sequence[Example], separator: str) -> list[str]:
    """A fault if --label-separator separates nothing in the table, while ; or | would, which names rarely have."""
    if not separator or any(len(e.classes) > 1 for e in examples):
        return []
    other, joined = joined_labels(sorted({label for e in examples for label in e.classes}))
    if other not in (";", "|"):
        return []
    absent = f"{name}: --label-separator '{separator}' separates no labels"
    return [f"{absent}, but '{other}' is in {shown(joined[0])}; write --label-separator '{other}'"]


def several_by(columns: Sequence[str], separator: str) -> SeveralLabels | None:
    """What --label-columns and --label-separator ask for; None without them."""
    return SeveralLabels((*columns,), separator) if columns or separator else None


def with_labels(
    where: str,
    fields: Mapping[str, Any],
    values: Mapping[str, Any],
    several: SeveralLabels,
    optional: Collection[str],
    faults: list[str],
) -> dict[str, Any]:
    """The fields of a row with its `labels`, sorted and each once, and these in words as its `label`.

    Labels with a fault are left out, and the fault is appended to `faults`. Without a value of an `optional` field,
    the labels are unknown.
    """
    (field, *_) = several.fields(["label"])
    value = fields.get(field)
    if field in optional and not several.columns and is_empty(value):
        return {**fields, "label": None, "labels": None}
    names, what = list[Any](), "label" if several.separator else "labels"
    try:
        names = [(name, as_name(name)) for name in several.parse(value, values)]
    except ValueError as error:
        faults.append(f"{where}, {what}: {error}")
    for value, name in names:
        if fault := name_fault(value, name, needed=True):
            faults.append(f"{where}, {what}: {fault}")
    labels = tuple(sys.intern(name) for name in sorted({name for _, name in names if name}))
    return {**fields, "label": in_words(labels), "labels": labels}


def _is_yes(name: str, value: Any) -> bool:
    """Whether a text has the label of a column of 0 and 1; ValueError for anything else."""
    number = isinstance(value, bool | int | float) and value in (0, 1)
    word = str(int(value) if number else value or "").strip().casefold().removesuffix(".0")
    if word not in (*YES, *NO) or isinstance(value, list | dict):
        raise ValueError(f"{name}: expected 0 or 1, found {shown(value)}")
    return word in YES


def several_columns(examples: Sequence[Example], places: Mapping[str, int]) -> NDArray[np.float32]:
    """1 for each label that a text has, else 0; NO_LABEL in rows whose labels are unknown: (N, M).

    `places` has the column of each of the M labels; others are left out.
    """
    columns = np.zeros((len(examples), len(places)), np.float32)
    for row, e in enumerate(examples):
        columns[row, [places[label] for label in e.classes if label in places]] = 1
        if e.labels is None:
            columns[row] = NO_LABEL
    return columns


def balanced_weights(labels: NDArray[np.int64], counted: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """N / (classes · n_y), with n_y texts of a text's class: of the same sum for each class, (N,) -> (N,).

    If only some texts are `counted`, (N,), the others have a weight of 1.
    """
    counted, weights = np.ones(len(labels), bool) if counted is None else counted, np.ones(len(labels), np.float32)
    _, places, counts = np.unique(labels[counted], return_inverse=True, return_counts=True)
    weights[counted] = counted.sum() / (len(counts) * counts[places])
    return weights


def in_words(labels: Sequence[str]) -> str:
    """Several labels as one text, whatever is in their names."""
    return json.dumps([*labels], ensure_ascii=False)


def answer_in_words(answer: int | Sequence[float], labels: Sequence[str]) -> str:
    """A model's answer as an example has its label: of a place among the labels, or of a 1 for each of several."""
    if isinstance(answer, int):
        return labels[answer]
    return in_words([label for label, has in zip(labels, answer, strict=True) if has])


def parse_soft_label(probabilities: Any, teacher_label: Any, order: Sequence[str]) -> tuple[SoftLabel, bool]:
    """The labels and probabilities of a row, empty if both columns are, and whether they are a `teacher_label`.

    Args:
        probabilities: A mapping from label, or a list in the order of `order`; also as JSON or Python writes it.
        teacher_label: One label, used where there are no probabilities.
        order: The labels of lists.

    Raises:
        ValueError: Says what is wrong.
    """
    if isinstance(probabilities, str) and probabilities.strip():
        try:
            probabilities = _written_out(probabilities)
        except ValueError:
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
