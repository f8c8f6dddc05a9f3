"""Faults that only several valid rows show together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from metakd.data.schema import MOST_LABELS, Example, folder_name
from metakd.data.splits import count_rows
from metakd.utils.errors import listed, shown

Counts = Mapping[str, Mapping[str, Mapping[str, int]]]  # rows by split, domain and label
LONGEST_FOLDER = 200  # characters of a folder's name, percent-encoded; file systems end at 255
MOST_DOMAINS = 1_000  # a student each; more are ids or texts in a wrong column


def faults_of(splits: Mapping[str, Sequence[Example]], labels: Collection[str]) -> list[str]:
    """Faults of the rows of all splits together, of which train has these `labels`."""
    pairs = Counter(e.text_pair is not None for rows in splits.values() for e in rows)
    counts = {split: count_rows(rows) for split, rows in splits.items()}
    names = Counter(name for e in splits["train"] for name, _ in e.soft_label)
    faults = faults_across(counts, lone=pairs[False], paired=pairs[True], more_labels=labels)
    return faults + foreign_labels(names, labels)


def foreign_labels(names: Counter[str], labels: Collection[str]) -> list[str]:
    """Faults of probabilities, counted by label in `names`, whose label is none of the `labels` of train."""
    known = {*labels}
    return [
        f"train, probabilities or teacher_label: {shown(name)} ({count} rows) is no label of train, which has "
        f"{listed(sorted(known))}"
        for name, count in sorted(names.items())
        if name not in known
    ]


def faults_across(counts: Counts, *, lone: int, paired: int, more_labels: Collection[str] = ()) -> list[str]:
    """Faults of valid rows as a whole; `lone` and `paired` count rows without and with a pair.

    `more_labels` are labels of train that none of its rows has as the likeliest.
    """
    by_domain = {split: Counter({d: sum(c.values()) for d, c in domains.items()}) for split, domains in counts.items()}
    by_label = {split: sum(map(Counter, domains.values()), Counter[str]()) for split, domains in counts.items()}
    domains = by_domain.get("train", Counter[str]())
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
