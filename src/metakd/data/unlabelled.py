"""Text without labels, from which students learn what the teacher says of it."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from metakd.data.examples import Reader, content_id, read_table
from metakd.data.schema import SOFT, Example
from metakd.data.sources import Source
from metakd.data.splits import by_domain, sample_by_domain
from metakd.utils.errors import InputError, listed, require, shown

ID = "unlabelled/"  # before the id of each, so that none is that of a training row
FOLDS = 5
MOST_KNOWN = 20_000  # training texts from which domains are learnt
CHUNK = 10_000  # texts whose domains are predicted at once
TOKENS = r"(?u)\w+|[^\w\s]+"  # every text has one


def read_unlabelled(
    source: Source | None,
    gaps: Sequence[Example],
    splits: Mapping[str, Sequence[Example]],
    reader: Reader,
    most: int | None,
    seed: int,
) -> list[Example]:
    """The texts that are in none of the splits, each once, with the domains of train.

    Args:
        source: Tables with the column text, and domain or not; labels are not read.
        gaps: Rows of train whose label is empty.
        splits: The labelled rows.
        reader: Reads the tables, and gets a notice of what was kept.
        most: The most texts, drawn evenly from the domains; None for all.
        seed: Draws them.

    Returns:
        The examples, whose labels are empty. Texts without a domain get the one that train's texts suggest.

    Raises:
        InputError: With every fault, or if nothing is left.
    """
    name = source.name if source else "train"
    rows = [*gaps, *(_rows(source, reader) if source else ())]
    reader.faults += _unfit(rows, splits["train"])
    reader.refuse_faults(name)
    kept, left_out = _new(rows, splits)
    if not kept:
        remedy = "leave out --unlabelled" if source else "leave out --unlabelled-rows"
        raise InputError(f"{name}: no text is left that is not in train, dev or test; {remedy}")
    kept, assigned = _with_domains(kept, splits["train"], seed)
    drawn = _draw(kept, most, seed)
    left_out += ["not drawn"] * (len(kept) - len(drawn))
    counts = Counter(left_out)
    each = ", ".join(f"{counts[where]} {where}" for where in dict.fromkeys(left_out))
    dropped = f"; {len(left_out)} left out: {each}" * bool(each)
    reader.notices.append(f"{name}: {len(drawn)} new texts without labels{dropped}{assigned}")
    return drawn


def _rows(source: Source, reader: Reader) -> list[Example]:
    columns = {field: column for field, column in (reader.columns or {}).items() if field not in ("label", "id", *SOFT)}
    rows = list[Example]()
    for table in source.tables.values():
        faults = reader.faults_of(table.name)
        how: dict[str, Any] = {"needed": ("text",), "optional": ("domain",), "columns": columns}
        read = [e for _, e in read_table(table, faults, **how, each_row=reader.skips)]
        reader.take(table.name, faults, any_valid=bool(read))
        rows += [replace(e, label="") for e in read]
    return rows


def _unfit(rows: Iterable[Example], train: Sequence[Example]) -> list[str]:
    """Faults of rows that are valid by themselves."""
    domains, paired = {e.domain for e in train}, any(e.text_pair is not None for e in train)
    unknown = Counter(e.domain for e in rows if e.domain and e.domain not in domains)
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


def _with_domains(rows: list[Example], train: Sequence[Example], seed: int) -> tuple[list[Example], str]:
    """The rows, each with a domain, and how sure those are that were not there: TF-IDF into a linear classifier."""
    missing = [_whole(e) for e in rows if not e.domain]
    known = sample_by_domain(train, MOST_KNOWN, seed)
    domains = np.array([e.domain for e in known])
    counts = Counter(domains.tolist())
    if not missing or len(counts) == 1:
        return [e if e.domain else replace(e, domain=known[0].domain) for e in rows], ""
    modules = ("feature_extraction.text", "svm", "pipeline", "model_selection")
    text, linear, pipeline, selection = (require(f"sklearn.{module}", "train") for module in modules)
    counter = text.TfidfVectorizer(sublinear_tf=True, token_pattern=TOKENS)
    classifier, texts = pipeline.make_pipeline(counter, linear.LinearSVC(random_state=0)), [_whole(e) for e in known]
    sure = "unknown, as a domain has one text"
    if min(counts.values()) > 1:
        right = selection.cross_val_score(classifier, texts, domains, cv=min(FOLDS, *counts.values())).mean()
        sure = f"{100 * right:.1f} % by cross-validation"
    classifier.fit(texts, domains)
    parts = (missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK))
    guesses = iter([guess for part in parts for guess in classifier.predict(part).tolist()])
    assigned = [e if e.domain else replace(e, domain=next(guesses)) for e in rows]
    return assigned, f"; {len(missing)} had no domain and got one by TF-IDF (accuracy {sure})"


def _whole(example: Example) -> str:
    return f"{example.text} {example.text_pair or ''}"


def _draw(rows: list[Example], most: int | None, seed: int) -> list[Example]:
    """At most `most` rows, in their order: as many of each domain, or all that it has."""
    if most is None or len(rows) <= most:
        return rows
    left, kept, domains = most, set[str](), sorted(by_domain(rows).values(), key=len)
    for place, members in enumerate(domains):
        count = min(len(members), left // (len(domains) - place))
        kept |= {e.id for e in random.Random(seed).sample(members, count)}
        left -= count
    return [e for e in rows if e.id in kept]
