"""Labels that may be wrong: those of training rows that the teacher contradicts, even if it has learnt from them."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from metakd.data.labels import answer_in_words
from metakd.data.readers import LONGEST_ROW
from metakd.data.schema import Example
from metakd.utils.artifacts import write_text
from metakd.utils.errors import as_input_error

SURE = 0.9  # probability from which a teacher that contradicts a label casts doubt on it
COLUMNS = ("id", "domain", "label", "teacher_label", "probability", "text", "text_pair")


def write_suspects(
    path: Path, examples: Sequence[Example], confidences: Tensor, best: Tensor, labels: Sequence[str]
) -> None:
    """Write a table of the examples that the teacher, SURE or surer, gives another label; the surest first.

    Args:
        path: A CSV file.
        examples: Rows with gold labels.
        confidences: (N,), the teacher's highest probabilities.
        best: (N,), the places of their labels; or (N, M), 1 for each label, if a text may have several.
        labels: M names.
    """
    doubted = [
        (p, label, e)
        for p, answer, e in zip(confidences.tolist(), best.tolist(), examples, strict=True)
        if p >= SURE and (label := answer_in_words(answer, labels)) != e.label
    ]
    file = io.StringIO(newline="")
    table = csv.writer(file)
    table.writerow(COLUMNS)
    for p, label, e in sorted(doubted, key=lambda row: (-row[0], row[2].id)):
        table.writerow((e.id, e.domain, e.label, label, round(p, 4), e.text, e.text_pair or ""))
    write_text(path, file.getvalue())


def read_suspects(path: Path) -> list[dict[str, str]] | None:
    """The rows of such a table; None if there is none. InputError for one that another program has changed."""
    if not path.is_file():
        return None
    csv.field_size_limit(LONGEST_ROW)
    with as_input_error(f"{path}: not as metakd wrote it; restore it, or delete it"):
        with path.open(encoding="utf-8", newline="") as file:
            table = csv.DictReader(file, restval="")
            rows = [*table]
        if tuple(table.fieldnames or ()) != COLUMNS:
            raise ValueError("other columns")
    return rows
