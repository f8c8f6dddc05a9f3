"""One table's rows -> checked examples, as a stream."""

import dataclasses
import difflib
import hashlib
import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from metakd.data.readers import Values
from metakd.data.schema import FIELDS, LABELLED, MOST_LABELS, SOFT, Example, SoftLabel
from metakd.data.soft_labels import likeliest, parse_soft_label
from metakd.data.sources import Table, open_source
from metakd.utils.errors import InputError, listed, raise_faults, shown
from metakd.utils.validation import damage

LONGEST_NAME = 1_000  # characters of a label, a domain or an id
SECOND_HEADER = (
    "repeats the names of the columns, as a second header; drop the row, and check the order of the columns below it"
)
OF_ONE_ROW = re.compile(r", row \d+( and \d+ more)?[,:]")  # after the table's name, in a fault that some rows have


def read_examples(path: Path, *, columns: Mapping[str, str] | None = None, encoding: str = "utf-8") -> list[Example]:
    """All rows of one labelled file; raises one InputError with every fault."""
    faults: list[str] = []
    examples = with_ids(open_file(path, encoding), faults, columns=columns)
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
    faults: list[str] = dataclasses.field(default_factory=list)
    skipped: list[str] = dataclasses.field(default_factory=list)
    skippable: bool = False  # whether `skips` would leave out rows with some of the faults
    notices: list[str] = dataclasses.field(default_factory=list)

    def labelled(self, table: Table, *, is_train: bool = False, empty_labels: bool = False) -> list[Example]:
        """All valid rows of a labelled table, each with a unique id; with `empty_labels`, some may have none.

        Those of train may have a soft label instead, if the reader reads them.
        """
        faults, order = list[str](), self.soft_labels if is_train else None
        needed = tuple(name for name in LABELLED if name != "label" or not empty_labels)
        optional = ("label",) * empty_labels
        how = {"needed": needed, "optional": optional, "columns": self.columns, "probability_labels": order}
        examples = with_ids(table, faults, **how)
        self.take(table.name, faults, any_valid=bool(examples))
        return examples

    def take(self, name: str, faults: Sequence[str], any_valid: bool) -> None:
        """Add a table's faults to those that count, or skip those of single rows."""
        bad = [fault for fault in faults if any_valid and self.skips and OF_ONE_ROW.match(fault, len(name))]
        self.skippable |= any_valid and not self.skips and any(OF_ONE_ROW.match(fault, len(name)) for fault in faults)
        skipped = {*bad}
        self.faults += [fault for fault in faults if fault not in skipped]
        self.skipped += bad
        if bad:
            self.notices.append(f"{name}: {len(bad)} faults; their rows are left out, for example {bad[0]}")

    def refuse_faults(self, name: str) -> None:
        """Raise InputError for the faults so far, if any, and say how to leave out their rows where that would help."""
        if self.faults:
            remedy = "\n  To leave out such rows, add --skip-bad-rows" * self.skippable
            raise InputError(f"{InputError.collect(name, self.faults).args[0]}{remedy}")


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
) -> Iterator[tuple[int, Example]]:
    """The valid rows of a table with their numbers; faults of the other rows are appended to `faults`.

    `needed` are the fields that every row has to have, `optional` labels or domains that are read where there are any.
    `columns` maps a field to its column if the names differ. What a row does not have is empty in its example. Soft
    labels are read if there are `probability_labels`, the labels of lists, or an empty list.
    """
    names = {field: field for field in FIELDS} | dict(columns or {})
    soft = () if probability_labels is None else SOFT
    fields_needed = [f for f in dict.fromkeys((*needed, *(columns or {}))) if f not in (*optional, *SOFT)]
    read = dict.fromkeys((*fields_needed, *optional, *soft))
    unused = {"label", "domain", *SOFT} - {*read}
    faults += _named_twice(table.name, [(field, names[field]) for field in read])
    first_rows: dict[str, tuple[int, list[str]]] = {}  # without the field, and the columns that they have
    unseen = {*read} & {"label", *SOFT} & {*optional, *(columns or {})} - {*fields_needed}
    absences = Counter[str]()
    before, row, values = len(faults), 0, Values()
    for row, values in table.rows(faults):
        unseen -= {field for field in unseen if names[field] in values}
        absent = _absent(values, names, fields_needed, soft)
        absences.update(absent)
        for field in absent:
            first_rows.setdefault(field, (row, list(values)))
        if not absent and _repeats_names(values):
            faults.append(f"{table.name}, row {row}: {SECOND_HEADER}")
        elif not absent:
            fields = {field: None if field in unused else values.get(name) for field, name in names.items()}
            example = _check(f"{table.name}, row {row}", fields, fields_needed, faults, probability_labels)
            if example is not None:
                yield row, example
    faults += [f"{table.name}: {_absence(field, names[field], [*values])}" for field in sorted(unseen) if row]
    for field, (first, others) in first_rows.items():
        more = f" and {absences[field] - 1} more" if absences[field] > 1 else ""
        faults.append(f"{table.name}, row {first}{more}: {_absence(field, names[field], others)}")
    if not row and len(faults) == before:
        faults.append(f"{table.name}: no rows")


def _absent(values: Values, names: Mapping[str, str], needed: Sequence[str], soft: Sequence[str]) -> list[str]:
    """The needed fields whose columns a row does not have; it needs no label if it has a soft one."""
    absent = [field for field in needed if names[field] not in values]
    has_soft_label = any(not _is_empty(values.get(names[field])) for field in soft)
    return [field for field in absent if field != "label" or not has_soft_label]


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _named_twice(table: str, columns: Sequence[tuple[str, str]]) -> list[str]:
    """Faults of columns from which several fields are read."""
    fields_of = {column: [field for field, other in columns if other == column] for _, column in columns}
    return [
        f"{table}: --columns reads {' and '.join(fields)} from one column, {shown(column)}; name one each"
        for column, fields in fields_of.items()
        if len(fields) > 1
    ]


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


def _repeats_names(values: Values) -> bool:
    """Whether a row's values are the names of its columns, in any order: the header of a second export, for one."""
    names = {name.strip().casefold() for name in values} - {""}
    cells = [cell for cell in values.values() if isinstance(cell, str) and cell.strip()]
    repeated = (cell.strip("\ufeff").strip().casefold() in names for cell in cells)
    return len(cells) == len(names) > 1 and all(repeated)


def _absence(field: str, column: str, others: Sequence[str]) -> str:
    lowered = {name.casefold(): name for name in others}
    near = difflib.get_close_matches(column.casefold(), lowered, n=1)
    flag = f"--columns {field}={listed([lowered[near[0]]]) if near else '...'}"
    column_of = f" (for {field})" if column != field else ""
    remedy = f"did you mean {flag}?" if near else f"choose one with {flag}"
    return f"no column {column!r}{column_of}; the columns are: {listed(others) or 'none'}; {remedy}"


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
            soft_label, hard = parse_soft_label(fields["probabilities"], _name(fields["teacher_label"]), order)
        except ValueError as error:
            faults.append(f"{where}, {error}")
        unfit = [fault for name, _ in soft_label if not hard and (fault := _label_fault(name))]
        faults += [f"{where}, probabilities, a label: {fault}" for fault in unfit]
    for field in ("text", "text_pair"):
        value = fields[field] = fields[field] if fields[field] != "" else None
        if (value is not None or field in needed) and (fault := _text_fault(value)):
            faults.append(f"{where}, {field}: {fault}")
    for field in ("label", "domain", "id", "teacher_label"):
        name = _name(fields[field])
        if fault := _name_fault(fields[field], name, field in needed and not (soft_label and field == "label")):
            faults.append(f"{where}, {field}: {fault}")
        fields[field] = name or ""
    if len(faults) > before:
        return None
    gold = bool(fields["label"]) or not soft_label
    label = fields["label"] if gold else likeliest(soft_label)
    label, domain = sys.intern(label), sys.intern(fields["domain"])  # one string for all their rows
    return Example(fields["id"], fields["text"], fields["text_pair"], label, domain, soft_label, gold, hard)


def _text_fault(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        return f"expected text, found {shown(value)}"
    if value is not None and (fault := damage(value)):
        return fault
    return None if value is not None and _has_content(value) else "is empty; drop the row or give it text"


def _name_fault(value: Any, name: str | None, needed: bool) -> str | None:
    """The fault of `value` as a label, domain or id, if any; `name` is the result of `_name(value)`."""
    if value is None or name == "":
        return "is empty; fill it in or drop the row" if needed else None
    if name is None:
        return f"expected a name or a whole number, found {shown(value)}"
    if fault := damage(name):
        return fault
    if any(unicodedata.category(c) == "Cc" for c in name):
        return f"control characters in {shown(name)}; remove them"
    if len(name) > LONGEST_NAME:
        return f"too long for a name ({len(name):,} characters); is this the right column?"
    return None if _has_content(name) else f"expected a name or a whole number, found {shown(value)}"


@lru_cache(2 * MOST_LABELS)
def _label_fault(name: str) -> str | None:
    """The fault of a label of probabilities, which many rows have."""
    return _name_fault(name, name, needed=True)


def _name(value: Any) -> str | None:
    """A label, domain or id as text, without blanks around it; None for a value that cannot be one."""
    if isinstance(value, float) and value.is_integer():  # pandas turns whole numbers beside a gap into floats
        value = int(value)
    try:
        return str(value).strip() if isinstance(value, str | int) else None
    except ValueError:  # thousands of digits
        return None


def _has_content(text: str) -> bool:
    """Whether the text has anything besides white space and control characters."""
    return any(not c.isspace() and unicodedata.category(c)[0] != "C" for c in text)


def content_id(example: Example) -> str:
    """An id made from the text itself, so that it does not depend on the order of rows."""
    parts = [example.domain, example.label, example.text, example.text_pair]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
