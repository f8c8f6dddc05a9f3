"""Text without labels, from which students learn what the teacher says of it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from metakd.data.examples import content_id, read_table
from metakd.data.schema import Example
from metakd.data.sources import open_source
from metakd.utils.errors import InputError, listed, raise_faults, shown

ID = "unlabelled/"  # before the id of each, so that none is that of a training row


class Unlabelled(NamedTuple):
    """Texts without labels, the place to read them from again, and how many they are."""

    examples: list[Example]
    place: str | None
    notice: str


def read_unlabelled(
    data: Any,
    splits: Mapping[str, Sequence[Example]],
    *,
    columns: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
    data_config: str | None = None,
) -> Unlabelled:
    """The texts of `data` that are in none of the splits, each once, with the domains of train.

    Args:
        data: As `load_dataset` reads it, with the columns text and domain; labels are not read.
        splits: The labelled rows.
        columns: The column of each field with another name.
        encoding: Encoding of text files.
        data_config: Configuration of a hub dataset that has several.

    Returns:
        The examples, whose labels are empty.

    Raises:
        InputError: With every fault, or if nothing is left.
    """
    source, faults = open_source(data, encoding, data_config), list[str]()
    named = {field: column for field, column in (columns or {}).items() if field not in ("label", "id")}
    rows = [
        replace(e, label="")
        for table in source.tables.values()
        for _, e in read_table(table, faults, needed=("text", "domain"), columns=named)
    ]
    faults += _unfit(rows, splits["train"])
    raise_faults(source.name, faults)
    kept, left_out = _new(rows, splits)
    if not kept:
        raise InputError(f"{source.name}: no text is left that is not in train, dev or test; leave out --unlabelled")
    counts = Counter(left_out)
    each = ", ".join(f"{counts[where]} {where}" for where in dict.fromkeys(left_out))
    notice = f"{source.name}: {len(kept)} new texts without labels" + f"; {len(left_out)} left out: {each}" * bool(each)
    return Unlabelled(kept, source.place, notice)


def _unfit(rows: Iterable[Example], train: Sequence[Example]) -> list[str]:
    """Faults of rows that are valid by themselves."""
    domains, paired = {e.domain for e in train}, any(e.text_pair is not None for e in train)
    unknown = Counter(e.domain for e in rows if e.domain not in domains)
    faults = [
        f"domain {shown(name)} ({count} rows): not in train, which has {listed(sorted(domains))}; drop the rows, or "
        "label some"
        for name, count in unknown.items()
    ]
    if wrong := sum((e.text_pair is not None) != paired for e in rows):
        faults.append(f"text_pair: {wrong} rows {'lack' if paired else 'have'} one, unlike those of train")
    return faults


def _new(rows: Iterable[Example], splits: Mapping[str, Sequence[Example]]) -> tuple[list[Example], list[str]]:
    """The rows whose text is new, with unique ids, and where each of the others is."""
    places = {e.inputs: f"in {split}" for split, examples in splits.items() for e in examples}
    kept, left_out, ids = list[Example](), list[str](), {e.id for e in splits["train"]}
    for e in rows:
        if (place := places.get(e.inputs)) is not None:
            left_out.append(place)
            continue
        places[e.inputs] = "repeated"
        name = f"{ID}{e.id or content_id(e)}"
        while name in ids:
            name += "'"
        ids.add(name)
        kept.append(replace(e, id=name))
    return kept, left_out
