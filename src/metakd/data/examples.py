"""One table's rows -> checked examples, as a stream."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metakd.data.readers import Values
from metakd.data.schema import FIELDS, LABELLED, Example
from metakd.data.sources import Table, open_source
from metakd.utils.errors import InputError, listed, shown
from metakd.utils.validation import damage

WORD = re.compile(r"\w")
LONGEST_WORD = 1_000  # characters of a label, a domain or an id


def read_examples(path: Path, *, columns: Mapping[str, str] | None = None, encoding: str = "utf-8") -> list[Example]:
    """All rows of one labelled file; raises one InputError with every fault."""
    faults: list[str] = []
    examples = with_ids(open_file(path, encoding), faults, columns=columns)
    if faults:
        raise InputError.collect(str(path), faults)
    return examples


def open_file(path: Path, encoding: str = "utf-8") -> Table:
    """The one table of a file; InputError for a folder."""
    tables = open_source(path, encoding).tables
    if "" not in tables:
        raise InputError(f"{path}: expected one file, found a folder")
    return tables[""]


def with_ids(table: Table, faults: list[str], *, columns: Mapping[str, str] | None = None) -> list[Example]:
    """All sound rows of a labelled table, each with an id of its own: a repeated text gets -2, -3, ..."""
    seen, known, found = Counter[str](), Counter[str](), list[Example]()
    for _, example in read_table(table, faults, labelled=True, columns=columns):
        if not example.id:
            seen[name := _content_id(example)] += 1
            example = replace(example, id=name if seen[name] == 1 else f"{name}-{seen[name]}")
        known[example.id] += 1
        found.append(example)
    for name, count in known.items():
        if count > 1:
            faults.append(f"{table.name}: id {shown(name)} stands on {count} rows; make ids unique or leave them out")
    return found


def stream(table: Table, faults: list[str], *, columns: Mapping[str, str] | None = None) -> Iterator[Example]:
    """The sound rows of a table without labels, one after the other, with the ids that they have or their texts give.

    Nothing of a row is kept, so ids may stand on several.
    """
    for _, example in read_table(table, faults, labelled=False, columns=columns):
        yield example if example.id else replace(example, id=_content_id(example))


def read_table(
    table: Table, faults: list[str], *, labelled: bool, columns: Mapping[str, str] | None = None
) -> Iterator[tuple[int, Example]]:
    """The sound rows of a table with their numbers; what is wrong with the others goes to `faults`.

    `columns` says where a field has another name than ours. An example's id is empty where the row gives none.
    """
    names = {field: field for field in FIELDS} | dict(columns or {})
    needed = [*(LABELLED if labelled else ("text",)), *(columns or {})]
    absent: dict[str, _Absent] = {}
    before, row = len(faults), 0
    for row, values in table.rows(faults):
        lacking = [field for field in dict.fromkeys(needed) if names[field] not in values]
        for field in lacking:
            first = absent.setdefault(field, _Absent(row, list(values)))
            first.rows += 1
        if not lacking:
            found = {field: values.get(name) for field, name in names.items()}
            if not labelled:
                found |= dict.fromkeys((field for field in ("label", "domain") if field not in needed), None)
            if (example := _check(f"{table.name}, row {row}", found, needed, faults)) is not None:
                yield row, example
    faults += [first.fault(table.name, field, names[field]) for field, first in absent.items()]
    if not row and len(faults) == before:
        faults.append(f"{table.name}: no rows")


@dataclass
class _Absent:
    """A column that is not there: on which row first, what is there instead, and on how many rows."""

    row: int
    there: list[str]
    rows: int = 0

    def fault(self, table: str, field: str, column: str) -> str:
        lowered = {name.casefold(): name for name in self.there}
        near = difflib.get_close_matches(column.casefold(), lowered, n=1)
        meant = listed([lowered[near[0]]]) if near else "..."
        guess = f"did you mean --columns {field}={meant}?" if near else f"name it by --columns {field}={meant}"
        what = f"no {column!r}" + (f" (the column of {field})" if column != field else "")
        more = f" and {self.rows - 1} more" if self.rows > 1 else ""
        return f"{table}, row {self.row}{more}: {what}; fields there: {listed(self.there) or 'none'}; {guess}"


def _check(where: str, found: Values, needed: Sequence[str], faults: list[str]) -> Example | None:
    before = len(faults)
    for field in ("text", "text_pair"):
        value = found[field] = found[field] if found[field] != "" else None
        if value is None and field not in needed:
            continue
        if value is not None and not isinstance(value, str):
            faults.append(f"{where}, {field}: expected text, found {shown(value)}")
        elif value is not None and (told := damage(value)):
            faults.append(f"{where}, {field}: {told}")
        elif value is None or not _has_content(value):
            faults.append(f"{where}, {field}: is empty; drop the row or give it text")
    for field in ("label", "domain", "id"):
        value = found[field]
        name = _name(value)
        if name and (told := damage(name)):
            faults.append(f"{where}, {field}: {told}")
        elif name and any(unicodedata.category(c) == "Cc" for c in name):
            faults.append(f"{where}, {field}: control characters in the name {shown(name)}; take them out")
        elif name and len(name) > LONGEST_WORD:
            faults.append(f"{where}, {field}: {len(name):,} characters are too long for a name; is it another column?")
        elif name and _has_content(name):
            found[field] = name
        elif value is None or name == "":
            if field in needed:
                faults.append(f"{where}, {field}: is empty; give the row one or drop it")
        else:
            faults.append(f"{where}, {field}: expected a name or a whole number, found {shown(value)}")
    if len(faults) > before:
        return None
    label, domain = (sys.intern(found[field] or "") for field in ("label", "domain"))  # one string for all their rows
    return Example(found["id"] or "", found["text"], found["text_pair"], label, domain)


def _name(value: Any) -> str | None:
    """A label, domain or id as text, without blanks around it; None for what is no name."""
    if isinstance(value, float) and value.is_integer():  # what pandas makes of whole numbers beside a gap
        value = int(value)
    try:
        return str(value).strip() if isinstance(value, str | int) else None
    except ValueError:  # thousands of digits
        return None


def _has_content(text: str) -> bool:
    """Anything but white space and control characters."""
    return bool(WORD.search(text)) or any(not c.isspace() and unicodedata.category(c)[0] != "C" for c in text)


def _content_id(example: Example) -> str:
    """An id from the text itself, so that it survives a new order of rows."""
    parts = [example.domain, example.label, example.text, example.text_pair]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
