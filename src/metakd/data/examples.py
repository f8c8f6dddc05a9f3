"""One table's rows -> checked examples, as a stream."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from metakd.data.faults import (
    Alike,
    absence,
    as_name,
    is_empty,
    label_fault,
    name_fault,
    named_twice,
    repeats_names,
    text_fault,
)
from metakd.data.labels import SeveralLabels, likeliest, parse_soft_label, separator_faults, with_labels
from metakd.data.readers import Values
from metakd.data.schema import FIELDS, LABELLED, SOFT, Example, SoftLabel
from metakd.data.sources import Table, open_source
from metakd.utils.errors import Faults, InputError, raise_faults, shown

SECOND_HEADER = (
    "repeats the names of the columns, as a second header; drop the row, and check the order of the columns below it"
)
LISTS = "label is a list; if texts may have several labels, add --columns labels="
SKIP = "\n  To leave out such rows, add --skip-bad-rows"
OF_ONE_ROW = re.compile(r", row (\d+)( and \d+ more)?[,:]")  # after the table's name, in a fault that some rows have


def read_examples(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
    several: SeveralLabels | None = None,
) -> list[Example]:
    """All rows of one labelled file; raises one InputError with every fault."""
    faults, table = list[str](), open_file(path, encoding)
    examples = with_ids(table, faults, columns=columns, several=Reader(columns, several=several).label_format(table))
    raise_faults(str(path), faults)
    return examples


def open_file(path: Path, encoding: str = "utf-8") -> Table:
    """The one table of a file; InputError for a folder."""
    tables = open_source(path, encoding).tables
    if "" not in tables:
        raise InputError(f"{path}: expected one file, found a folder")
    return tables[""]


@dataclass
class Reader:
    """Reads the tables of one dataset; gathers the faults, or with `skips` the faults of the rows that it skips."""

    columns: Mapping[str, str] | None = None
    skips: bool = False
    soft_labels: Sequence[str] | None = None  # the labels of lists of probabilities; None reads no soft labels
    several: SeveralLabels | None = None  # None: as the table says
    faults: list[str] = dataclasses.field(default_factory=list)
    skipped: list[str] = dataclasses.field(default_factory=list)
    skippable: bool = False  # whether `skips` would leave out rows with some of the faults
    notices: list[str] = dataclasses.field(default_factory=list)

    def labelled(self, table: Table, *, is_train: bool = False, empty_labels: bool = False) -> list[Example]:
        """All valid rows of a labelled table, each with a unique id; with `empty_labels`, some may have none.

        Those of train may have a soft label instead, if the reader reads them.
        """
        faults, order = self.faults_of(table.name), self.soft_labels if is_train else None
        needed = tuple(name for name in LABELLED if name != "label" or not empty_labels)
        optional = ("label",) * empty_labels
        how = {"needed": needed, "optional": optional, "columns": self.columns, "probability_labels": order}
        several = self.label_format(table)
        examples = with_ids(table, faults, **how, several=several, each_row=self.skips)
        self.take(table.name, faults, any_valid=bool(examples))
        self.faults += separator_faults(table.name, examples, several.separator) if several and is_train else []
        return examples

    def faults_of(self, name: str) -> list[str]:
        """An empty list for the faults of a table; where rows with faults are skipped, there may be any number."""
        return [] if self.skips else Faults(name, SKIP)

    def label_format(self, table: Table) -> SeveralLabels | None:
        """How the table says which labels a text has, if it may have several; None: each has one.

        By itself, it says so by a column `labels` and none called label, of which there is a notice.
        """
        names = self.columns or {}
        if self.several is not None or "labels" in names:
            return self.several or SeveralLabels()
        _, values = next(iter(table.rows([])), (0, Values()))
        if "labels" not in values or names.get("label", "label") in values:
            return None
        self.notices.append(f"{table.name} has a column 'labels', so a text may have several labels")
        return SeveralLabels()

    def take(self, name: str, faults: Sequence[str], any_valid: bool) -> None:
        """Add a table's faults to those that count, or skip those of single rows."""
        matches = {fault: match for fault in faults if any_valid and (match := OF_ONE_ROW.match(fault, len(name)))}
        self.skippable |= bool(matches) and not self.skips
        bad = matches if self.skips else {}
        self.faults += [fault for fault in faults if fault not in bad]
        self.skipped += bad
        if bad:
            rows = len({match[1] for match in bad.values()})
            self.notices.append(f"{name}: rows with faults are left out: {rows}, for example {next(iter(bad))}")

    def refuse_faults(self, name: str) -> None:
        """Raise InputError for the faults so far, if any, and say how to leave out their rows where that would help."""
        if self.faults:
            raise InputError(f"{InputError.collect(name, self.faults).args[0]}{SKIP * self.skippable}")


def with_ids(table: Table, faults: list[str], **how: Any) -> list[Example]:
    """All valid rows of a labelled table, each with a unique id: a repeated text gets -2, -3, ...

    `how` are the other arguments of `read_table`.
    """
    repeats, examples = Counter[str](), list[Example]()
    for _, example in read_table(table, faults, **how):
        if not example.id:
            repeats[digest := content_id(example)] += 1
            example = replace(example, id=digest if repeats[digest] == 1 else f"{digest}-{repeats[digest]}")
        examples.append(example)
    faults += [
        f"{table.name}: id {shown(name)} is on {count} rows; make ids unique or leave them out"
        for name, count in Counter(e.id for e in examples).items()
        if count > 1
    ]
    return examples


def read_table(
    table: Table,
    faults: list[str],
    *,
    needed: Sequence[str] = LABELLED,
    optional: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    probability_labels: Sequence[str] | None = None,
    several: SeveralLabels | None = None,
    each_row: bool = False,
) -> Iterator[tuple[int, Example]]:
    """The valid rows of a table with their numbers; faults of the other rows are appended to `faults`.

    `needed` are the fields that every row has to have, `optional` labels or domains that are read where there are any.
    `columns` maps a field to its column if the names differ. What a row does not have is empty in its example. Soft
    labels are read if there are `probability_labels`, the labels of lists, or an empty list. With `several`, a text may
    have several labels. A fault that many rows share is said once, or with `each_row` of each.
    """
    several = several if "label" in (*needed, *optional) else None
    columns = {field: column for field, column in (columns or {}).items() if field != "labels" or several is not None}
    names = {field: field for field in FIELDS} | columns
    if several is not None:
        names |= {column: column for column in several.columns}
        needed, optional = several.fields(needed), several.fields(optional)
    required = [f for f in dict.fromkeys((*needed, *columns)) if f not in (*optional, *SOFT)]
    reads = _Fields(names, required, optional, probability_labels, several)
    faults += named_twice(table.name, [(field, names[field]) for field in reads.read])
    unseen = {*reads.read} & {"label", "labels", *SOFT} & {*optional, *columns} - {*required}
    alike, before, any_valid = Alike(table.name, each_row), len(faults), False
    row, values = 0, Values()
    for row, values in table.rows(faults):
        unseen -= {field for field in unseen if names[field] in values}
        example = reads.example(f"{table.name}, row {row}", row, values, alike, faults)
        if example is not None:
            any_valid = True
            yield row, example
    faults += [f"{table.name}: {absence(field, names[field], [*values])}" for field in sorted(unseen) if row]
    faults += alike.faults(any_valid)
    if not row and len(faults) == before:
        faults.append(f"{table.name}: no rows")


@dataclass(frozen=True)
class _Fields:
    """Which fields are read from which columns of a table."""

    names: Mapping[str, str]  # the column of each field
    required: Sequence[str]
    optional: Sequence[str]
    order: Sequence[str] | None  # the labels of lists of probabilities; None reads no soft labels
    several: SeveralLabels | None

    @property
    def soft(self) -> tuple[str, ...]:
        return () if self.order is None else SOFT

    @cached_property
    def read(self) -> list[str]:
        """All that are read where there are any."""
        return [*dict.fromkeys((*self.required, *self.optional, *self.soft))]

    @cached_property
    def unused(self) -> set[str]:
        return {"label", "labels", "domain", *SOFT} - {*self.read}

    def example(self, where: str, row: int, values: Values, alike: Alike, faults: list[str]) -> Example | None:
        """The example of a row; None if it has a fault, which is added to those that are `alike`, or to `faults`."""
        if absent := self._absent(values):
            for field in absent:
                alike.add(field, row, partial(absence, field, self.names[field], [*values]))
            return None
        if repeats_names(values):
            faults.append(f"{where}: {SECOND_HEADER}")
            return None
        fields = {field: None if field in self.unused else values.get(name) for field, name in self.names.items()}
        if self.several is None and _is_list(fields["label"]):
            alike.add(LISTS, row, lambda: f"{LISTS}{self.names['label']}")
            return None
        before = len(faults)
        if self.several is not None:
            fields = with_labels(where, fields, values, self.several, self.optional, faults)
        example = _check(where, fields, self.required, faults, self.order)
        return example if len(faults) == before else None

    def _absent(self, values: Values) -> list[str]:
        """The required fields whose columns a row does not have; it needs no label if it has a soft one."""
        absent = [field for field in self.required if self.names[field] not in values]
        has_soft_label = any(not is_empty(values.get(self.names[field])) for field in self.soft)
        return [field for field in absent if field != "label" or not has_soft_label]


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) or (
        hasattr(value, "tolist") and not isinstance(value.tolist(), str | int | float)
    )


def check_pairs(examples: Sequence[Example], pairs: bool | None) -> None:
    """Raise InputError if a model of pairs of texts is to read single ones, or the other way round; None: unknown."""
    wrong = [e for e in examples if pairs is not None and (e.text_pair is not None) != pairs]
    if not wrong:
        return
    rows = f"{len(wrong):,} of {len(examples):,} rows, for example {shown(wrong[0].text)},"
    if pairs:
        raise InputError(
            f"this model reads pairs of texts, but {rows} have no text_pair; add it, or name its column with --columns "
            "text_pair=..."
        )
    raise InputError(f"this model reads single texts, but {rows} have a text_pair; leave it out")


def _check(
    where: str, fields: Values, needed: Collection[str], faults: list[str], order: Sequence[str] | None
) -> Example | None:
    """The example of a row; None if one of its values has a fault.

    Unless `order` is None, soft labels are read, and a row that has one needs no label.
    """
    before, hard = len(faults), False
    soft_label: SoftLabel = ()
    if order is not None:
        try:
            soft_label, hard = parse_soft_label(fields["probabilities"], as_name(fields["teacher_label"]), order)
        except ValueError as error:
            faults.append(f"{where}, {error}")
        unfit = [fault for name, _ in soft_label if not hard and (fault := label_fault(name))]
        faults += [f"{where}, probabilities, a label: {fault}" for fault in unfit]
    for field in ("text", "text_pair"):
        value = fields[field] = fields[field] if fields[field] != "" else None
        if (value is not None or field in needed) and (fault := text_fault(value)):
            faults.append(f"{where}, {field}: {fault}")
    several: tuple[str, ...] | None = fields["labels"]
    for field in ("label", "domain", "id", "teacher_label")[several is not None :]:
        name = as_name(fields[field])
        if fault := name_fault(fields[field], name, field in needed and not (soft_label and field == "label")):
            faults.append(f"{where}, {field}: {fault}")
        fields[field] = name or ""
    if len(faults) > before:
        return None
    gold = bool(fields["label"]) or not soft_label
    label = fields["label"] if gold else likeliest(soft_label)
    label, domain = sys.intern(label), sys.intern(fields["domain"])  # one string for all their rows
    return Example(fields["id"], fields["text"], fields["text_pair"], label, domain, soft_label, gold, hard, several)


def content_id(example: Example) -> str:
    """An id made from the text itself, so that it does not depend on the order of rows."""
    parts = [example.domain, example.label, example.text, example.text_pair]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
