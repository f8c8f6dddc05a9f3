"""A file of texts -> its rows with what a model says of each, as JSONL, CSV or Parquet."""

import csv
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from metakd.data.examples import open_file, read_table
from metakd.data.readers import Values
from metakd.data.schema import Example
from metakd.data.sources import Table
from metakd.inference.by_domain import ByDomain
from metakd.inference.classifier import Classifier
from metakd.utils.artifacts import move_into_place
from metakd.utils.console import progress_bar
from metakd.utils.errors import Faults, InputError, as_input_error, listed, raise_faults, require, shown

CHUNK = 2048  # rows that are read and labelled at a time
LABEL, PROBABILITY, PROBABILITIES = "predicted_label", "probability", "probabilities"  # columns that are added
STDOUT = Path("-")
DIGITS = 6  # of a probability


def label_file(
    model: Classifier | ByDomain,
    source: Path,
    output: Path,
    *,
    columns: Mapping[str, str],
    encoding: str = "utf-8",
    probabilities: bool = False,
) -> int:
    """Write the rows of a file with the predicted label and its probability, in order.

    Args:
        model: One model for all rows, or one for those of each domain.
        source: A file with text, and with domain for models by domain.
        output: The file to write, whose suffix says how: .csv, .parquet, or else JSONL. STDOUT prints JSONL.
        columns: The column of each field with another name.
        encoding: Of the source.
        probabilities: Also write those of all labels.

    Returns:
        The number of rows. Only CHUNK are in memory at a time, unless Parquet is written.

    Raises:
        InputError: With every fault (`errors.Faults`); then nothing is written.
    """
    faults, kinds, count = Faults(str(source)), set[bool](), 0
    rows = _read(open_file(source, encoding), faults, columns, model)
    with _whole(output) as partial, closing(_writer(partial, output.suffix.lower())) as writer:
        with progress_bar("label texts", None) as progress:
            while chunk := list(islice(rows, CHUNK)):
                kinds |= {example.text_pair is not None for _, example in chunk}
                if faults or len(kinds) > 1:
                    continue  # after a fault, only more faults are collected
                answers = _answers(model, [example for _, example in chunk], probabilities)
                writer.write([values | added for (values, _), added in zip(chunk, answers, strict=True)])
                count += len(chunk)
                progress(advance=len(chunk))
        if len(kinds) > 1:
            faults.append("text_pair: some rows have it and others do not; add it to all rows or to none")
        raise_faults(str(source), faults)
    return count


@contextmanager
def _whole(output: Path) -> Iterator[Path]:
    """The path of a file that becomes `output`, or is printed, once it is complete."""
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch) if output == STDOUT else output.parent
        partial = here / f".{output.name}.{os.getpid()}.partial"
        try:
            yield partial
            if output == STDOUT:
                with partial.open(encoding="utf-8") as file:
                    shutil.copyfileobj(file, sys.stdout)
            else:
                move_into_place(partial, output)
        finally:
            partial.unlink(missing_ok=True)


def _read(
    table: Table, faults: list[str], columns: Mapping[str, str], model: Classifier | ByDomain
) -> Iterator[tuple[Values, Example]]:
    """The values of each valid row by column, and its text; domains without a model are faults."""
    latest = Values()

    def rows(problems: list[str]) -> Iterator[tuple[int, Values]]:
        nonlocal latest
        for row, values in table.rows(problems):
            latest = values
            yield row, values

    known = None if isinstance(model, Classifier) else [*model.folders]
    needed, checked = ("text",) if known is None else ("text", "domain"), False
    for row, example in read_table(Table(table.name, rows), faults, needed=needed, columns=columns):
        if not checked and (taken := {*latest} & {LABEL, PROBABILITY, PROBABILITIES}):
            raise InputError(
                f"{table.name}: has columns that predictions are written to, {listed(sorted(taken))}; rename"
            )
        checked = True
        if known is not None and example.domain not in known:
            faults.append(
                f"{table.name}, row {row}, domain: {shown(example.domain)} has no model; {listed(known)} have"
            )
        yield latest, example


def _answers(model: Classifier | ByDomain, examples: Sequence[Example], probabilities: bool) -> list[Values]:
    """What is added to the row of each example."""
    added: list[Values] = [{} for _ in examples]
    for domain in dict.fromkeys(e.domain for e in examples):
        classifier = model if isinstance(model, Classifier) else model.classifier(domain)
        rows = [row for row, e in enumerate(examples) if e.domain == domain]
        for row, p in zip(rows, classifier.model.answers([examples[row] for row in rows]).probabilities, strict=True):
            labels, best = classifier.labels, int(p.argmax())
            added[row] = {LABEL: labels[best], PROBABILITY: _rounded(p[best])}
            if probabilities:
                added[row][PROBABILITIES] = dict(zip(labels, map(_rounded, p), strict=True))
    return added


def _rounded(probability: float) -> float:
    return round(float(probability), DIGITS)


class _Writer(Protocol):
    def write(self, rows: Sequence[Values]) -> None: ...

    def close(self) -> None: ...


def _writer(path: Path, suffix: str) -> _Writer:
    kinds: dict[str, Callable[[Path], _Writer]] = {".csv": _Csv, ".parquet": _Parquet}
    return kinds.get(suffix, _Jsonl)(path)


class _Jsonl:
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def write(self, rows: Sequence[Values]) -> None:
        self._file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)

    def close(self) -> None:
        self._file.close()


class _Csv:
    """The columns are those of the first row; what is neither text nor a number is written as JSON."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._table: csv.DictWriter[str] | None = None

    def write(self, rows: Sequence[Values]) -> None:
        if self._table is None:
            self._table = csv.DictWriter(self._file, [*rows[0]], restval="")
            self._table.writeheader()
        for row in rows:
            if more := {*row} - {*self._table.fieldnames}:
                raise InputError(
                    f"a row has columns that the first one lacks, {listed(sorted(more))}; write .jsonl instead"
                )
            self._table.writerow({name: _cell(value) for name, value in row.items()})

    def close(self) -> None:
        self._file.close()


def _cell(value: Any) -> Any:
    nested = isinstance(value, dict | list | bool)
    return json.dumps(value, ensure_ascii=False, default=str) if nested else value


class _Parquet:
    def __init__(self, path: Path) -> None:
        self._arrow: Any = require("pyarrow", "train")
        self._path, self._tables = path, list[Any]()

    def write(self, rows: Sequence[Values]) -> None:
        names = dict.fromkeys(name for row in rows for name in row)
        with as_input_error("a column cannot be written as Parquet; write .jsonl instead"):
            self._tables.append(self._arrow.table({name: [row.get(name) for row in rows] for name in names}))

    def close(self) -> None:
        if self._tables:
            with as_input_error("a column cannot be written as Parquet; write .jsonl instead"):
                whole = self._arrow.concat_tables(self._tables, promote_options="permissive")
            require("pyarrow.parquet", "train").write_table(whole, self._path)
