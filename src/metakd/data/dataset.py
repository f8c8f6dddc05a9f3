"""Checked examples of several domains, their labels and domains, and the faults that only several rows show."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from metakd.data.examples import Reader
from metakd.data.faults import faults_of
from metakd.data.labels import several_by
from metakd.data.schema import SPLITS, Example, several_labels
from metakd.data.sources import Source, open_source
from metakd.data.splits import (
    by_domain,
    cut_into_splits,
    parse_cut,
    scored_split,
    too_small_to_cut,
    without_leaks,
    without_repeats,
)
from metakd.data.unlabelled import read_unlabelled
from metakd.utils.errors import InputError, raise_faults, shown

NO_SOFT_LABELS = "name their column with --columns probabilities=..., or leave out --soft-labels"


@dataclass(frozen=True)
class MultiDomainDataset:
    """Checked examples by split; `labels` and `domains` are sorted, and their order gives the integer ids."""

    name: str
    place: str | None  # path or hub id to read it from again; None for tables in memory
    splits: dict[str, list[Example]]
    labels: list[str]
    domains: list[str]
    notices: list[str] = field(default_factory=list)
    unlabelled: list[Example] = field(default_factory=list)  # texts that students learn from too; no label, no split
    unlabelled_place: str | None = None
    skipped: list[str] = field(default_factory=list)  # faults of the rows that were left out

    def __post_init__(self) -> None:
        """InputError if two training rows have the same id, as teacher outputs are cached by id."""
        ids = Counter(e.id for e in self.splits["train"])
        if repeated := [name for name, count in ids.items() if count > 1]:
            examples = f"{len(repeated)} ids are on several rows, for example {shown(repeated[0])}"
            raise InputError(f"{self.name}, train: {examples}; give each row a unique id")

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(rows):,}" for split, rows in self.splits.items())
        return f"<MultiDomainDataset {self.name}: {len(self.domains)} domains, {len(self.labels)} labels; {sizes}>"

    @property
    def train(self) -> list[Example]:
        return self.splits["train"]

    @cached_property
    def gold(self) -> list[Example]:
        """The training rows with gold labels, and of a domain where none has one all rows, by their likeliest label."""
        certain = {e.domain for e in self.train if e.gold}
        return [e for e in self.train if e.gold or e.domain not in certain]

    @cached_property
    def has_soft_labels(self) -> bool:
        return any(e.soft_label for e in self.train)

    @cached_property
    def several_labels(self) -> bool:
        """Whether a text may have several labels, or none."""
        return several_labels(self.train)

    @property
    def scored_split(self) -> str | None:
        return scored_split(self.splits)

    @cached_property
    def label_ids(self) -> dict[str, int]:
        """The integer id of each label."""
        return {label: number for number, label in enumerate(self.labels)}

    @cached_property
    def labels_by_domain(self) -> dict[str, list[str]]:
        """The labels that each domain has in train, or that are the likeliest by its probabilities."""
        seen = {(e.domain, label) for e in self.train for label in e.classes}
        return {domain: [label for label in self.labels if (domain, label) in seen] for domain in self.domains}

    @cached_property
    def domain_ids(self) -> dict[str, int]:
        """The integer id of each domain."""
        return {domain: number for number, domain in enumerate(self.domains)}

    @cached_property
    def by_domain(self) -> dict[str, dict[str, list[Example]]]:
        """The rows of each split by domain."""
        return {split: by_domain(rows) for split, rows in self.splits.items()}

    @cached_property
    def has_pairs(self) -> bool:
        return any(example.text_pair is not None for example in self.train)

    def only(self, domain: str) -> MultiDomainDataset:
        """The rows of one domain; the labels stay those of all domains."""
        return self._of_domains(f"{self.name}, {domain}", [domain])

    def without(self, domain: str) -> MultiDomainDataset:
        """The rows of all other domains."""
        return self._of_domains(f"{self.name} without {domain}", [d for d in self.domains if d != domain])

    def _of_domains(self, name: str, domains: list[str]) -> MultiDomainDataset:
        names = {*domains}
        splits = {split: [e for e in rows if e.domain in names] for split, rows in self.splits.items()}
        unlabelled = [e for e in self.unlabelled if e.domain in names]
        return replace(self, name=name, splits=splits, domains=domains, notices=[], unlabelled=unlabelled)

    def thinned(
        self, percent: int, seed: int, domain: str | None = None, *, rest_unlabelled: bool = False
    ) -> MultiDomainDataset:
        """With `percent` of the training texts of each domain (or of one) and label, drawn by seed; at least one.

        With `rest_unlabelled`, the others are added to the texts without labels.
        """
        if percent == 100:
            return self
        rows = [e for e in self.train if domain in (None, e.domain)]
        dropped = {e.id for e in cut_into_splits(rows, seed, dev=0, test=100 - percent, gold_alone=False)["test"]}
        train = [e for e in self.train if e.id not in dropped]
        blank: dict[str, Any] = {"label": "", "labels": None, "soft_label": (), "gold": True, "hard": False}
        rest = [replace(e, **blank) for e in self.train if e.id in dropped and rest_unlabelled]
        return replace(self, splits=self.splits | {"train": train}, notices=[], unlabelled=[*self.unlabelled, *rest])

    def with_unlabelled(self, percent: int, seed: int) -> MultiDomainDataset:
        """With `percent` of the texts without labels of each domain, drawn by seed."""
        if percent == 100:
            return self
        parts = [random.Random(seed).sample(r, len(r) * percent // 100) for r in by_domain(self.unlabelled).values()]
        kept = {e.id for part in parts for e in part}
        return replace(self, notices=[], unlabelled=[e for e in self.unlabelled if e.id in kept])

    def resplit(self, dev: int, test: int, seed: int = 0) -> MultiDomainDataset:
        """All rows, split again: `dev` and `test` percent of the texts of each domain and label, the rest for train."""
        ids = Counter(e.id for rows in self.splits.values() for e in rows)
        rows = [
            replace(e, id=f"{split}/{e.id}") if ids[e.id] > 1 else e  # files may number their rows the same way
            for split, rows in self.splits.items()
            for e in rows
        ]
        splits = cut_into_splits(rows, seed, dev, test)
        raise_faults(f"{self.name}, split again", faults_of(splits, _labels(splits["train"])))
        again = f"{self.name} was split again: {_sizes(splits)}"
        return replace(self, splits=splits, notices=[*self.notices, *_left_out(rows, splits), again])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every field of every example, in order: of what results are computed from."""
        return _digest({split: self.splits.get(split, []) for split in SPLITS})

    @cached_property
    def train_fingerprint(self) -> str:
        """SHA-256 over every field of every training example, in order: of what models learn from."""
        return _digest({"train": self.train})

    @cached_property
    def dev_fingerprint(self) -> str:
        """SHA-256 over every field of every dev example, in order: of what finished models are checked on."""
        return _digest({"dev": self.splits.get("dev", [])})

    @cached_property
    def unlabelled_fingerprint(self) -> str:
        """SHA-256 over every field of every text without a label, in order."""
        return _digest({"unlabelled": self.unlabelled})


def _digest(parts: Mapping[str, Sequence[Example]]) -> str:
    digest = hashlib.sha256()
    for name, e in ((name, e) for name, examples in parts.items() for e in examples):
        sure = ["not hard"] if len(e.soft_label) == 1 and not e.hard else []
        soft = [e.soft_label, e.gold, *sure] if e.soft_label else []
        digest.update(json.dumps([name, e.id, e.text, e.text_pair, e.label, e.domain, *soft]).encode())
    return digest.hexdigest()


def load_dataset(
    data: Any,
    seed: int = 0,
    *,
    columns: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
    data_config: str | None = None,
    cut: str = "auto",
    skip_bad_rows: bool = False,
    drop_duplicates: bool = False,
    drop_leaks: bool = False,
    unlabelled: Any = None,
    unlabelled_rows: bool = False,
    max_unlabelled: int | None = None,
    soft_labels: bool = False,
    probability_labels: Sequence[str] = (),
    label_columns: Sequence[str] = (),
    label_separator: str = "",
) -> MultiDomainDataset:
    """The checked examples of `data`: train, dev and test (dev or test may be missing), or one table split into them.

    InputError lists every fault with file, row and field.

    Args:
        data: A file, folder, hub dataset's id, pandas DataFrame, `datasets` object, or a dict of such tables by split.
        seed: Draws the split of one table, and the texts of `max_unlabelled`.
        columns: The column of each field with another name, as in {"text": "review"}.
        encoding, data_config: Encoding of text files; configuration of a hub dataset that has several.
        cut: Percent for train, dev and test of one table, as in "80/10/10", or "auto" [splits.test_percent].
        skip_bad_rows: Leave out rows with faults; the dataset's `skipped` lists them.
        drop_duplicates, drop_leaks: Keep one row of each text, label and domain; drop texts that a later split has.
        unlabelled: Text without labels that students learn from too, in any form that `data` may have.
        unlabelled_rows, max_unlabelled: Take rows of train with an empty label as such text; draw so much, by domain.
        soft_labels, probability_labels: Read the columns `probabilities` and `teacher_label` of train [data.labels];
            the labels of lists of probabilities.
        label_columns, label_separator: How a table writes several labels of a text [data.labels.SeveralLabels].
    """
    source = open_source(data, encoding, data_config)
    more = None if unlabelled is None else open_source(unlabelled, encoding, data_config)
    several = several_by(label_columns, label_separator)
    reader = Reader(columns, skip_bad_rows, probability_labels if soft_labels else None, several)
    splits, gaps = _read(source, reader, unlabelled_rows)
    splits, notices = _prepared(source.name, splits, seed, cut, drop_duplicates, drop_leaks)
    texts = read_unlabelled(more, gaps, splits, reader, max_unlabelled, seed) if more or unlabelled_rows else []
    return _dataset(source, more, splits, texts, [*notices, *reader.notices], reader.skipped)


def _dataset(
    source: Source,
    more: Source | None,
    splits: dict[str, list[Example]],
    unlabelled: list[Example],
    notices: list[str],
    skipped: list[str],
) -> MultiDomainDataset:
    labels, domains = _labels(splits["train"]), sorted({e.domain for e in splits["train"]})
    places = source.place, more.place if more else None
    return MultiDomainDataset(source.name, places[0], splits, labels, domains, notices, unlabelled, places[1], skipped)


def _read(source: Source, reader: Reader, unlabelled_rows: bool) -> tuple[dict[str, list[Example]], list[Example]]:
    """The rows with labels by split, and those of train without."""
    rows = {
        name: reader.labelled(table, is_train=is_train, empty_labels=unlabelled_rows and is_train)
        for name, table in source.tables.items()
        for is_train in [name in ("", "train")]
    }
    reader.refuse_faults(source.name)
    if reader.soft_labels is not None and not any(e.soft_label for examples in rows.values() for e in examples):
        raise InputError(f"{source.name}: no row of train has probabilities or a teacher_label; {NO_SOFT_LABELS}")
    labelled = {name: [e for e in examples if e.label] for name, examples in rows.items()}
    return labelled, [e for examples in rows.values() for e in examples if not e.label]


def _prepared(
    name: str, splits: dict[str, list[Example]], seed: int, cut: str, drop_duplicates: bool, drop_leaks: bool
) -> tuple[dict[str, list[Example]], list[str]]:
    """The rows as they will be used, cut into splits if they are one table, and what was done to them, in words."""
    notices, faults, shares = list[str](), list[str](), parse_cut(cut)
    steps: list[tuple[Callable[..., Any], str]] = [(without_repeats, "they repeat another row")] * drop_duplicates
    steps += [(without_leaks, "their texts are also in a later split")] * drop_leaks
    if "" in splits:
        rows = splits[""]
        splits = cut_into_splits(rows, seed, *shares)
        faults = too_small_to_cut(splits["test"])
        if not any(e.gold for e in splits["train"]):
            faults = ["no row has a gold label to be scored by; add files for dev and test"]
        notices.append(f"{name} was split by domain and label with seed {seed}: {_sizes(splits)}")
        notices += _left_out(rows, splits)
    elif cut != "auto":
        notices.append(f"--cut {cut} changes nothing: {name} has the splits {', '.join(splits)}")
    for step, why in steps:
        whole, splits = splits, step(splits)
        dropped = {split: len(rows) - len(splits[split]) for split, rows in whole.items()}
        notices += [f"{n} rows of {split} dropped: {why}" for split, n in dropped.items() if n]
    raise_faults(name, faults + faults_of(splits, _labels(splits["train"])))
    return splits, notices


def _labels(train: Sequence[Example]) -> list[str]:
    """The gold labels; if there are none, those that have probabilities."""
    gold = {label for e in train if e.gold for label in e.classes}
    return sorted(gold or {name for e in train for name, _ in e.soft_label})


def _left_out(rows: Sequence[Example], splits: Mapping[str, Sequence[Example]]) -> list[str]:
    """A notice of rows that the cut has left out, if any."""
    count = len(rows) - sum(map(len, splits.values()))
    return [f"{count} rows without a gold label are left out: their texts are in dev or test"] if count else []


def _sizes(splits: Mapping[str, Sequence[Example]]) -> str:
    return ", ".join(f"{name} {len(rows)}" for name, rows in splits.items())
