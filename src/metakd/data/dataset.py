"""Checked examples of several domains: their labels and domains, and what is wrong across rows."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from urllib.parse import quote

from metakd.data.examples import with_ids
from metakd.data.schema import SPLITS, Example
from metakd.data.sources import open_source
from metakd.data.splits import (
    _counts,
    _sizes,
    cut_into_splits,
    of_domain,
    scored_split,
    too_small_to_cut,
    without_leaks,
)
from metakd.utils.errors import InputError, listed, shown

Counts = Mapping[str, Mapping[str, Mapping[str, int]]]  # rows by split, domain and label
LONGEST_NAME = 200  # of a folder, percent-encoded; file systems end at 255
MOST_DOMAINS, MOST_LABELS = 1_000, 10_000  # a student each, a class each; more are ids or texts in the wrong column
DEVICES = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9]", re.IGNORECASE)  # names that Windows keeps for itself


@dataclass(frozen=True)
class MultiDomainDataset:
    """Checked examples by split; `labels` and `domains` are sorted, and their order gives the integer ids."""

    name: str
    place: str | None  # the path or hub id to read it from again; None for tables in memory
    splits: dict[str, list[Example]]
    labels: list[str]
    domains: list[str]
    notices: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """What a teacher said is kept by id: InputError where two training rows have the same."""
        known = Counter(e.id for e in self.splits["train"])
        if twice := [name for name, count in known.items() if count > 1]:
            told = f"{len(twice)} ids stand on several rows, such as {shown(twice[0])}; give each row its own"
            raise InputError(f"{self.name}, train: {told}")

    @property
    def train(self) -> list[Example]:
        return self.splits["train"]

    @property
    def scored_split(self) -> str | None:
        return scored_split(self.splits)

    @property
    def has_pairs(self) -> bool:
        return any(example.text_pair is not None for example in self.train)

    def only(self, domain: str) -> MultiDomainDataset:
        """The rows of one domain; the classes stay those of all."""
        own = {split: of_domain(rows, domain) for split, rows in self.splits.items()}
        return replace(self, name=f"{self.name}, {domain}", splits=own, domains=[domain], notices=[])

    def without(self, domain: str) -> MultiDomainDataset:
        """The rows of all other domains."""
        rest = {split: [e for e in rows if e.domain != domain] for split, rows in self.splits.items()}
        domains = [other for other in self.domains if other != domain]
        return replace(self, name=f"{self.name} without {domain}", splits=rest, domains=domains, notices=[])

    def thinned(self, percent: int, seed: int, domain: str | None = None) -> MultiDomainDataset:
        """Only `percent` of the training texts of each domain (or of one) and label, drawn by seed; at least one."""
        if percent == 100:
            return self
        rare = [e for e in self.train if domain in (None, e.domain)]
        left = {e.id for e in cut_into_splits(rare, seed, dev=0, test=100 - percent)["train"]}
        lost = {e.id for e in rare} - left
        train = [e for e in self.train if e.id not in lost]
        return replace(self, splits=self.splits | {"train": train}, notices=[])

    def resplit(self, dev: int, test: int, seed: int = 0) -> MultiDomainDataset:
        """All rows, cut again: `dev` and `test` percent of the texts of each domain and label, the rest for train."""
        known = Counter(e.id for rows in self.splits.values() for e in rows)
        rows = [
            replace(e, id=f"{split}/{e.id}") if known[e.id] > 1 else e  # files may number their rows alike
            for split, rows in self.splits.items()
            for e in rows
        ]
        splits = cut_into_splits(rows, seed, dev, test)
        if faults := _faults_across(splits):
            raise InputError.collect(f"{self.name}, cut anew", faults)
        return replace(self, splits=splits, notices=[*self.notices, f"{self.name} was cut anew: {_sizes(splits)}"])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every field of every example, in order."""
        digest = hashlib.sha256()
        for split in SPLITS:
            for e in self.splits.get(split, []):
                digest.update(json.dumps([split, e.id, e.text, e.text_pair, e.label, e.domain]).encode())
        return digest.hexdigest()


def folder_name(domain: str) -> str:
    """The domain's name as one safe path component: percent-encoded but for letters, digits, blank and '_-'.

    Two domains have the same one, on disks that take capitals for small letters, only if `faults_across` refuses them.
    """
    name = quote(domain, safe=" ").replace(".", "%2E").replace("~", "%7E")
    return f"%{ord(name[0]):02X}{name[1:]}" if DEVICES.fullmatch(name) else name


def load_dataset(
    data: Any,
    seed: int = 0,
    *,
    columns: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
    data_config: str | None = None,
    drop_leaks: bool = False,
) -> MultiDomainDataset:
    """Read `data`: train, dev and test (dev or test may be missing), or one table that is cut into them.

    `data` is anything that `sources.open_source` opens. `columns` says where a field has another name than ours, such
    as {"text": "review"}. `drop_leaks` drops rows whose text stands in a later split as well. Raises one InputError
    that lists every fault with file, row and field.
    """
    source = open_source(data, encoding, data_config)
    faults: list[str] = []
    splits = {name: with_ids(t, faults, columns=columns) for name, t in source.tables.items()}
    if faults:
        raise InputError.collect(source.name, faults)
    notices = []
    if "" in splits:
        faults += too_small_to_cut(_counts(splits[""]))
        splits = cut_into_splits(splits[""], seed)
        notices.append(f"{source.name} was cut into splits by domain and label with seed {seed}: {_sizes(splits)}")
    if drop_leaks:
        kept = without_leaks(splits)
        lost = {name: len(splits[name]) - len(rows) for name, rows in kept.items()}
        notices += [f"{n} rows of {name} dropped: their texts stand in a later split" for name, n in lost.items() if n]
        splits = kept
    faults += _faults_across(splits)
    if faults:
        raise InputError.collect(source.name, faults)
    train = splits["train"]
    return MultiDomainDataset(
        name=source.name,
        place=source.place,
        splits=splits,
        labels=sorted({e.label for e in train}),
        domains=sorted({e.domain for e in train}),
        notices=notices,
    )


def _faults_across(splits: Mapping[str, Sequence[Example]]) -> list[str]:
    counts = {split: _counts(rows) for split, rows in splits.items()}
    pairs = Counter(e.text_pair is not None for rows in splits.values() for e in rows)
    return faults_across(counts, lone=pairs[False], paired=pairs[True])


def faults_across(counts: Counts, *, lone: int, paired: int) -> list[str]:
    """What makes sound rows unfit to learn from together; `lone` and `paired` count rows without and with a pair."""
    rows: dict[str, Counter[str]] = {}
    labels: dict[str, Counter[str]] = {}
    for split, domains in counts.items():
        rows[split] = Counter({domain: sum(own.values()) for domain, own in domains.items()})
        labels[split] = sum((Counter(own) for own in domains.values()), Counter[str]())
    known, known_labels = rows.get("train", Counter[str]()), labels.get("train", Counter[str]())
    faults = []
    if len(known_labels) < 2:
        names = listed(list(known_labels)) or "none"
        faults.append(f"train: one label only ({names}); a classifier needs at least two")
    for split in [split for split in counts if split != "train"]:
        for what, found, there in (("label", labels[split], known_labels), ("domain", rows[split], known)):
            strange = sorted(set(found) - set(there))
            faults += [f"{split}, {what}: {shown(v)} ({found[v]} rows) does not occur in train" for v in strange]
    faults += _unfit_names(known, known_labels)
    if lone and paired:
        faults.append(f"text_pair: missing on {lone} rows and present on others; give it to all rows or to none")
    return faults


def _unfit_names(domains: Collection[str], labels: Collection[str]) -> list[str]:
    """What speaks against the domains and labels of train, by their number and their names alone."""
    faults = []
    for what, names, most in (("domain", domains, MOST_DOMAINS), ("label", labels, MOST_LABELS)):
        if len(names) > most:
            faults.append(f"{what}: {len(names):,} of them, and {most:,} is the most; is this the column you mean?")
    alike: dict[str, list[str]] = defaultdict(list)
    for domain in sorted(domains):
        if len(folder_name(domain)) > LONGEST_NAME:
            faults.append(f"domain: {domain[:30]!r}... is too long for the name of a folder; shorten it")
        alike[folder_name(domain).casefold()].append(domain)
    for names in alike.values():
        if len(names) > 1:
            told = " and ".join(map(shown, names))
            faults.append(f"domain: {told} differ in capitals alone, and some disks give them one folder; rename one")
    return faults
