"""Faults of data, in words: of single cells, of columns, and those that only several valid rows show together."""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

from metakd.data.readers import Values
from metakd.data.schema import FIELDS, MOST_LABELS, Example, folder_name
from metakd.data.splits import count_rows
from metakd.utils.errors import listed, shown
from metakd.utils.validation import damage

Counts = Mapping[str, Mapping[str, Mapping[str, int]]]  # rows by split, domain and label
LONGEST_NAME = 1_000  # characters of a label, a domain or an id
LONGEST_FOLDER = 200  # characters of a folder's name, percent-encoded; file systems end at 255
MOST_DOMAINS = 1_000  # a student each; more are ids or texts in a wrong column


class Alike:
    """Faults that many rows share: each is said once, with the first row that has it, or of `each` row."""

    def __init__(self, table: str, each: bool) -> None:
        self._table, self._each = table, each
        self._counts, self._faults, self._rows = Counter[str](), dict[str, str](), defaultdict[str, list[int]](list)

    def add(self, kind: str, row: int, fault: Callable[[], str]) -> None:
        """A row has a fault of this kind; `fault` says it in words."""
        if kind not in self._faults:
            self._faults[kind] = fault()
        self._counts[kind] += 1
        if self._each or kind not in self._rows:
            self._rows[kind].append(row)

    def faults(self, any_valid: bool) -> list[str]:
        """All in words; where no row is valid, none will be left out, and so they are not told apart."""
        if self._each and any_valid:
            return [f"{self._table}, row {n}: {self._faults[kind]}" for kind, rows in self._rows.items() for n in rows]
        more = {kind: f" and {count - 1} more" if count > 1 else "" for kind, count in self._counts.items()}
        return [f"{self._table}, row {self._rows[kind][0]}{more[kind]}: {text}" for kind, text in self._faults.items()]


def named_twice(table: str, columns: Sequence[tuple[str, str]]) -> list[str]:
    """Faults of columns from which several fields are read."""
    fields_of = {column: [field for field, other in columns if other == column] for _, column in columns}
    return [
        f"{table}: --columns reads {' and '.join(fields)} from one column, {shown(column)}; name one each"
        for column, fields in fields_of.items()
        if len(fields) > 1
    ]


def repeats_names(values: Values) -> bool:
    """Whether a row's values are the names of its columns, in any order: the header of a second export, for one."""
    names = {name.strip().casefold() for name in values} - {""}
    cells = [cell for cell in values.values() if isinstance(cell, str) and cell.strip()]
    repeated = (cell.strip("\ufeff").strip().casefold() in names for cell in cells)
    return len(cells) == len(names) > 1 and all(repeated)


def absence(field: str, column: str, others: Sequence[str]) -> str:
    lowered = {name.casefold(): name for name in others}
    near = difflib.get_close_matches(column.casefold(), lowered, n=1)
    flag = f"--columns {field}={listed([lowered[near[0]]]) if near else '...'}"
    column_of = f" (for {field})" if column != field else ""
    single = ", or add one with a single name, if the data has no domains" if field == "domain" else ""
    remedy = f"did you mean {flag}?" if near else f"choose one with {flag}{single}"
    remedy = (
        remedy if field in FIELDS else "a column of --label-columns; name them as the file does, or rename it there"
    )
    return f"no column {column!r}{column_of}; the columns are: {listed(others) or 'none'}; {remedy}"


def is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def text_fault(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        return f"expected text, found {shown(value)}"
    if value is not None and (fault := damage(value)):
        return fault
    return None if value is not None and _has_content(value) else "is empty; drop the row or give it text"


def name_fault(value: Any, name: str | None, needed: bool) -> str | None:
    """The fault of `value` as a label, domain or id, if any; `name` is the result of `as_name(value)`."""
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
def label_fault(name: str) -> str | None:
    """The fault of a label of probabilities, which many rows have."""
    return name_fault(name, name, needed=True)


def as_name(value: Any) -> str | None:
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


# --- Of several rows together


def faults_of(splits: Mapping[str, Sequence[Example]], labels: Collection[str]) -> list[str]:
    """Faults of the rows of all splits together, of which train has these `labels`."""
    pairs = Counter(e.text_pair is not None for rows in splits.values() for e in rows)
    counts = {split: count_rows(rows) for split, rows in splits.items()}
    names = Counter(name for e in splits["train"] for name, _ in e.soft_label)
    if mixed := mixed_kinds({split: {e.labels is not None for e in rows} for split, rows in splits.items()}):
        return mixed
    by_domain = {split: Counter(e.domain for e in rows) for split, rows in splits.items()}
    faults = faults_across(counts, by_domain, lone=pairs[False], paired=pairs[True], more_labels=labels)
    return faults + foreign_labels(names, labels)


def mixed_kinds(kinds: Mapping[str, Collection[bool]]) -> list[str]:
    """The fault of splits that differ in whether a text may have several labels, if they do."""
    several = [split for split, kind in kinds.items() if True in kind]
    if not several or all(False not in kind for kind in kinds.values()):
        return []
    return [f"{listed(several)}: texts may have several labels there, and one elsewhere; write all in the same way"]


def foreign_labels(names: Counter[str], labels: Collection[str]) -> list[str]:
    """Faults of probabilities, counted by label in `names`, whose label is none of the `labels` of train."""
    known = {*labels}
    return [
        f"train, probabilities or teacher_label: {shown(name)} ({count} rows) is no label of train, which has "
        f"{listed(sorted(known))}"
        for name, count in sorted(names.items())
        if name not in known
    ]


def faults_across(
    counts: Counts,
    by_domain: Mapping[str, Mapping[str, int]],
    *,
    lone: int,
    paired: int,
    more_labels: Collection[str] = (),
) -> list[str]:
    """Faults of valid rows as a whole.

    Args:
        counts: Rows by label, which may count for several labels, or for none.
        by_domain: Rows by split and domain.
        lone: Rows without a pair.
        paired: Rows with one.
        more_labels: Labels of train that none of its rows has as the likeliest.
    """
    by_label = {split: sum(map(Counter, domains.values()), Counter[str]()) for split, domains in counts.items()}
    domains = by_domain.get("train", {})
    labels = {*by_label.get("train", Counter[str]()), *more_labels}
    faults = []
    if len(labels) < 2:
        faults.append(f"train: only one label ({listed(sorted(labels)) or 'none'}); a classifier needs at least two")
    faults += [
        f"{split}, {what}: {shown(name)} ({rows[name]} rows) does not occur in train; add it there, or drop the rows"
        for split in counts
        for what, rows, known in (("label", by_label[split], labels), ("domain", by_domain[split], domains))
        for name in sorted(set(rows) - set(known))
    ]
    faults += _unfit_names(domains, labels)
    if lone and paired:
        faults.append(f"text_pair: missing on {lone} rows and present on others; give it to all rows or to none")
    return faults


def _unfit_names(domains: Collection[str], labels: Collection[str]) -> list[str]:
    """Faults of the domains and labels of train: too many, too long, or too similar."""
    faults = [
        f"{what}: {len(names):,} different names, but the limit is {most:,}; is this the right column?"
        for what, names, most in (("domain", domains, MOST_DOMAINS), ("label", labels, MOST_LABELS))
        if len(names) > most
    ]
    alike: dict[str, list[str]] = defaultdict(list)
    for domain in sorted(domains):
        if len(folder_name(domain)) > LONGEST_FOLDER:
            faults.append(f"domain: {domain[:30]!r}... is too long for a folder name; shorten it")
        alike[folder_name(domain).casefold()].append(domain)
    for names in alike.values():
        if len(names) > 1:
            pair = " and ".join(map(shown, names))
            faults.append(f"domain: {pair} differ only in capitals, which some disks ignore; rename one")
    return faults
