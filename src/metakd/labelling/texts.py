"""The rows of a file that a language model is to label, and the labels to tell apart."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from metakd.data.examples import open_file, read_table
from metakd.data.faults import absence
from metakd.data.schema import Example
from metakd.utils.errors import InputError, listed, raise_faults


def read_texts(path: Path, columns: Mapping[str, str], encoding: str) -> list[Example]:
    """The rows of a file, with label and domain where they have them; InputError with every fault."""
    faults, table = list[str](), open_file(path, encoding)
    in_file = {column for _, values in table.rows([]) for column in values}
    optional = ("domain", *["label"] * (columns.get("label", "label") in in_file))
    rows = read_table(table, faults, needed=("text",), optional=optional, columns=columns)
    examples = [example for _, example in rows]
    if len({e.text_pair is None for e in examples}) > 1:
        faults.append("text_pair: some rows have it and others do not; add it to all rows or to none")
    if "domain" in columns and columns["domain"] not in in_file:
        faults.append(f"{table.name}: {absence('domain', columns['domain'], sorted(in_file))}")
    raise_faults(str(path), faults)
    return examples


def labels_of(examples: Sequence[Example], named: Sequence[str], classes: Sequence[str] = ()) -> list[str]:
    """The labels to tell apart: those that were named, else those of the rows, else a model's classes.

    Raises InputError for fewer than two.
    """
    if "" in named:
        raise InputError("--labels: one is empty; separate labels by single commas, as in --labels bad,good")
    labels = [*dict.fromkeys(named)] or sorted({e.label for e in examples if e.label})
    if len(labels) < 2 and not named and {*labels} <= {*classes}:
        labels = [*classes]
    if len(labels) < 2:
        raise InputError("--labels: at least two different labels are needed, as in --labels bad,good")
    if unknown := sorted({e.label for e in examples if e.label} - {*labels}):
        raise InputError(f"--labels: rows have other labels, {listed(unknown)}; add these")
    return labels
