"""A file of texts -> its rows with what a model says of each, as JSONL, CSV or Parquet."""

from __future__ import annotations

import csv
import json
import math
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
from metakd.inference.by_domain import LOADED, ByDomain
from metakd.inference.classifier import Classifier
from metakd.utils.artifacts import move_into_place
from metakd.utils.console import progress_bar
from metakd.utils.errors import Faults, InputError, as_input_error, collecting, listed, raise_faults, require, shown
from metakd.utils.validation import damage

CHUNK = 2048  # rows that are read and labelled at a time
LABEL, PROBABILITY, PROBABILITIES = "predicted_label", "probability", "probabilities"  # columns that are added
LABELS = "predicted_labels"  # in place of the first two, if a text may have several
STDOUT = Path("-")
DIGITS = 6  # of a probability
ELSEWHERE = "drop the row, or name one model for all rows"


def label_file(
    model: Classifier | ByDomain,
    source: Path,
    output: Path,
    *,
    columns: Mapping[str, str],
    encoding: str = "utf-8",
    probabilities: bool = False,
) -> int:
    """Write the rows of a file with the predicted label and its probability, or the labels, in order.

    The file is read twice: first for its faults and columns, so that no work is done in vain.

    Args:
        model: One model for all rows, or one for those of each domain.
        source: A file with text, and with domain for models by domain.
        output: The file to write, whose suffix says how: .csv, .parquet, or else JSONL. STDOUT prints JSONL.
        columns: The column of each field with another name.
        encoding: Of the source.
        probabilities: Also write those of all labels.

    Returns:
        The number of rows. CHUNK of them are in memory at a time; CHUNK for every LOADED domains where there are more,
        so that no model is loaded again for a few rows.

    Raises:
        InputError: With every fault (`errors.Faults`); then nothing is written.
    """
    table, count = open_file(source, encoding), 0
    kind = WRITERS.get(output.suffix.lower(), _Jsonl)
    with _whole(output) as partial, closing(kind(partial)) as writer:
        domains = _check(table, Faults(str(source)), columns, model, probabilities, writer)
        with progress_bar("label texts", None) as progress:
            size = CHUNK * max(1, math.ceil(domains / LOADED))
            for chunk in _chunks(_read(table, [], columns, model), size):
                answers = _answers(model, [example for _, example in chunk], probabilities)
                writer.write([values | answer for (values, _), answer in zip(chunk, answers, strict=True)])
                count += len(chunk)
                progress(advance=len(chunk))
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
                _print(partial)
            else:
                move_into_place(partial, output)
        finally:
            partial.unlink(missing_ok=True)


def _print(path: Path) -> None:
    """Write a file's bytes to standard output, as far as somebody reads them."""
    sys.stdout.flush()
    try:
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # as by `| head`; what is left must not fail when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _chunks(rows: Iterator[tuple[Values, Example]], size: int = CHUNK) -> Iterator[list[tuple[Values, Example]]]:
    return iter(lambda: list(islice(rows, size)), [])


def _check(
    table: Table,
    faults: list[str],
    columns: Mapping[str, str],
    model: Classifier | ByDomain,
    probabilities: bool,
    writer: _Writer,
) -> int:
    """Tell the writer all columns; the number of domains. Raises InputError with the faults of the file."""
    kinds, domains = set[bool](), dict[str, None]()
    for chunk in _chunks(_read(table, faults, columns, model)):
        kinds |= {example.text_pair is not None for _, example in chunk}
        domains |= dict.fromkeys(example.domain for _, example in chunk)
        if not faults:
            faults += [f"{table.name}: {fault}" for fault in writer.expect([values for values, _ in chunk])]
    if len(kinds) > 1:
        faults.append("text_pair: some rows have it and others do not; add it to all rows or to none")
    raise_faults(table.name, faults)
    labels = model.labels if isinstance(model, Classifier) else model.labels(domains)  # loads them all
    added = [*([LABELS] if model.several_labels else [LABEL, PROBABILITY]), *[PROBABILITIES] * probabilities]
    if taken := [name for name in added if name in writer.columns]:
        faults.append(f"the columns {listed(taken)} are written with predictions; rename those of the file")
    raise_faults(table.name, faults)
    writer.begin(added, labels)
    return len(domains)


def _read(
    table: Table, faults: list[str], columns: Mapping[str, str], model: Classifier | ByDomain
) -> Iterator[tuple[Values, Example]]:
    """The values of each valid row by column, as they can be written, and its text."""
    latest = Values()

    def rows(problems: list[str]) -> Iterator[tuple[int, Values]]:
        nonlocal latest
        for row, values in table.rows(problems):
            latest = values
            yield row, values

    known, names = None if isinstance(model, Classifier) else [*model.folders], set[str]()
    needed = ("text",) if known is None else ("text", "domain")
    for row, example in read_table(Table(table.name, rows), faults, needed=needed, columns=columns):
        where, values = f"{table.name}, row {row}", latest
        new = [name for name in values if name not in names]
        faults += [f"{table.name}, the name of a column: {fault}" for name in new if (fault := damage(name))]
        names.update(new)
        for name, value in values.items():
            if fault := _unfit(value):
                faults.append(f"{where}, {name}: {fault}")
        if known is not None and example.domain not in known:
            faults.append(f"{where}, domain: {shown(example.domain)} has no model, {listed(known)} have; {ELSEWHERE}")
        yield {name: None if _is_gap(value) else value for name, value in values.items()}, example


def _unfit(value: Any) -> str | None:
    """Why a value cannot be written as text."""
    if isinstance(value, bytes):
        return "has bytes; leave the column out"
    if isinstance(value, dict | list):
        try:
            json.dumps(value, ensure_ascii=False, allow_nan=False, default=str).encode()
        except (ValueError, TypeError) as error:
            return f"cannot be written as JSON ({error}); leave the column out"
    return damage(value) if isinstance(value, str) else None


def _is_gap(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)  # which JSON cannot say


def _answers(model: Classifier | ByDomain, examples: Sequence[Example], probabilities: bool) -> list[Values]:
    """What is added to the row of each example."""
    added: list[Values] = [{} for _ in examples]
    for domain in dict.fromkeys(e.domain for e in examples):
        classifier = model if isinstance(model, Classifier) else model.classifier(domain)
        rows = [row for row, e in enumerate(examples) if e.domain == domain]
        for row, p in zip(rows, classifier.model.answers([examples[row] for row in rows]).probabilities, strict=True):
            labels, best = classifier.labels, int(p.argmax())
            if classifier.several_labels:
                has = p > classifier.model.thresholds
                added[row] = {LABELS: [label for label, yes in zip(labels, has, strict=True) if yes]}
            else:
                added[row] = {LABEL: labels[best], PROBABILITY: _rounded(p[best])}
            if probabilities:
                added[row][PROBABILITIES] = dict(zip(labels, map(_rounded, p), strict=True))
    return added


def _rounded(probability: float) -> float:
    return round(float(probability), DIGITS)


# --- Formats


class _Writer(Protocol):
    columns: dict[str, None]  # of all rows, in order

    def expect(self, rows: Sequence[Values]) -> list[str]:
        """Take note of the columns of some rows; what cannot be written."""

    def begin(self, added: Sequence[str], labels: Sequence[str]) -> None:
        """Open the file, for rows with these columns as well; `labels` are those of all models."""

    def write(self, rows: Sequence[Values]) -> None: ...

    def close(self) -> None: ...


class _Text:
    def __init__(self, path: Path) -> None:
        self.path, self.columns = path, dict[str, None]()
        self._file: Any = None

    def expect(self, rows: Sequence[Values]) -> list[str]:
        self.columns |= dict.fromkeys(name for row in rows for name in row)
        return []

    def begin(self, added: Sequence[str], labels: Sequence[str]) -> None:
        self._file = self.path.open("w", encoding="utf-8", newline="")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class _Jsonl(_Text):
    def write(self, rows: Sequence[Values]) -> None:
        self._file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)


class _Csv(_Text):
    """What is neither text nor a number is written as JSON."""

    def begin(self, added: Sequence[str], labels: Sequence[str]) -> None:
        super().begin(added, labels)
        self._table = csv.DictWriter(self._file, [*self.columns, *added], restval="")
        self._table.writeheader()

    def write(self, rows: Sequence[Values]) -> None:
        self._table.writerows({name: _cell(value) for name, value in row.items()} for row in rows)


def _cell(value: Any) -> Any:
    nested = isinstance(value, dict | list | bool)
    return json.dumps(value, ensure_ascii=False, default=str) if nested else value


class _Parquet:
    def __init__(self, path: Path) -> None:
        self._arrow: Any = require("pyarrow", "train")
        self._path, self.columns = path, dict[str, None]()
        self._schema: Any = self._arrow.schema([])
        self._file: Any = None

    def expect(self, rows: Sequence[Values]) -> list[str]:
        self.columns |= dict.fromkeys(name for row in rows for name in row)
        problems: list[InputError] = []
        for name in self.columns:
            failure = f"the column {shown(name)} cannot be written as Parquet; write .jsonl instead"
            with collecting(problems), as_input_error(failure):
                values = self._arrow.array([row.get(name) for row in rows])
                field = self._arrow.schema([(name, values.type)])
                self._schema = self._arrow.unify_schemas([self._schema, field], promote_options="permissive")
        return [*map(str, problems)]

    def begin(self, added: Sequence[str], labels: Sequence[str]) -> None:
        number = self._arrow.float64()
        kinds = {PROBABILITIES: self._arrow.struct([(label, number) for label in labels]), PROBABILITY: number}
        kinds[LABELS] = self._arrow.list_(self._arrow.string())
        answers = self._arrow.schema([(name, kinds.get(name, self._arrow.string())) for name in added])
        with as_input_error("the rows cannot be written as Parquet; write .jsonl instead"):
            self._schema = self._arrow.unify_schemas([self._schema, answers])
            self._file = require("pyarrow.parquet", "train").ParquetWriter(self._path, self._schema)

    def write(self, rows: Sequence[Values]) -> None:
        with as_input_error("the rows cannot be written as Parquet; write .jsonl instead"):
            self._file.write_table(self._arrow.Table.from_pylist([*rows], schema=self._schema))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


WRITERS: dict[str, Callable[[Path], _Writer]] = {".csv": _Csv, ".parquet": _Parquet}
