"""What is in the data: counts, lengths, duplicates, leaks, contradictory labels."""

import hashlib
import heapq
from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metakd.config.settings import Settings
from metakd.data.dataset import NO_SOFT_LABELS, MultiDomainDataset
from metakd.data.examples import Reader, read_table
from metakd.data.faults import Counts, faults_across, foreign_labels, mixed_kinds
from metakd.data.labels import several_by
from metakd.data.schema import LABELLED, SPLITS, Example
from metakd.data.sources import open_source
from metakd.data.splits import parse_cut, scored_split, stratum, test_percent, too_small_to_cut
from metakd.inspection.lengths import lengths, long_texts
from metakd.inspection.remarks import remarks
from metakd.inspection.terms import strongest_terms
from metakd.inspection.unknown_tokens import foreign_domains, pieces_per_word, unknown_shares
from metakd.utils.errors import shown
from metakd.utils.validation import open_tokenizer

SAMPLE = 20_000  # most rows that lengths and terms are computed from
SHOWN_ROWS = 5
TERMS = 10  # of each domain
WHOLE = "all"  # the name of a table that is yet to be split
NAMES = (*SPLITS, WHOLE)


def inspect_data(
    data: Any,
    *,
    columns: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
    data_config: str | None = None,
    cut: str = "auto",
    skip_bad_rows: bool = False,
    drop_leaks: bool = False,
    unlabelled_rows: bool = False,
    soft_labels: bool = False,
    probability_labels: Sequence[str] = (),
    label_columns: Sequence[str] = (),
    label_separator: str = "",
    tokenizer: Path | None = None,
    max_length: int = Settings.model_fields["max_length"].default,
) -> dict[str, Any]:
    """A report on data as `dataset.load_dataset` reads it, made in one pass without keeping its texts.

    Faults do not stop it, unless there are thousands: they are under `faults` in the report. Lengths are in tokens of
    `tokenizer`, a tokenizer.json, or else in words; `unknown` has the share of tokens that it does not know, by domain.
    Raises InputError for data that cannot be read at all.
    """
    source, order = open_source(data, encoding, data_config), probability_labels if soft_labels else None
    reader = Reader(columns, skip_bad_rows, several=several_by(label_columns, label_separator))
    inspector, splits = Inspector(parse_cut(cut)[1]), [split for split in ("", *SPLITS) if split in source.tables]
    for split in splits[:: -1 if drop_leaks else 1]:  # a leak is dropped from the earlier split
        table, is_train, row = source.tables[split], split in ("", "train"), 0
        optional = ("label",) * (unlabelled_rows and is_train)
        how: dict[str, Any] = {"columns": columns, "probability_labels": order if is_train else None}
        how |= {"needed": [name for name in LABELLED if name not in optional], "optional": optional}
        how |= {"several": reader.label_format(table), "each_row": skip_bad_rows}
        for row, example in read_table(table, faults := reader.faults_of(table.name), **how):
            if example.label:
                inspector.add(split or WHOLE, row, example, unless_later=drop_leaks)
        reader.take(table.name, faults, any_valid=row > 0)
    if order is not None and not (inspector.soft_names or reader.faults):
        reader.faults.append(f"no row of train has probabilities or a teacher_label; {NO_SOFT_LABELS}")
    report, model = inspector.report(reader.faults), open_tokenizer(tokenizer) if tokenizer else None
    unknown, pieces = ((f(model, inspector.sample) if model else {}) for f in (unknown_shares, pieces_per_word))
    measured, terms = lengths(inspector.sample, model, max_length), strongest_terms(inspector.sample, TERMS)
    noted = reader.notices + report["remarks"] + foreign_domains(unknown, pieces) + long_texts(measured)
    words = {domain: [word for word, _ in best] for domain, best in terms.items()}
    more = {"data": source.name, "skippable": reader.skippable, "lengths": measured, "unknown": unknown}
    return report | more | {"terms": words, "remarks": noted}


def inspect_dataset(data: MultiDomainDataset) -> dict[str, Any]:
    """The same report on data in memory, without lengths, terms and row numbers."""
    inspector = Inspector()
    for split in SPLITS:
        for example in data.splits.get(split, []):
            inspector.add(split, 0, example)
    report = inspector.report()
    report["contradictions"]["rows"] = []
    return report | {"skippable": False}


class Inspector:
    """Takes rows one by one and keeps 36 bytes of each, and a sample of full rows drawn by the hash of their text."""

    def __init__(self, test: int | None = None) -> None:
        """`test` is the percent for test of one table; None as `splits.test_percent` says."""
        self._test = test
        self._counts: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
        self._rows: dict[str, Counter[str]] = defaultdict(Counter)
        self._labels: dict[str, int] = {}  # of a text; several in words
        self._classes: dict[str, tuple[str, ...]] = {}  # the labels that these words name
        self._kinds: dict[str, set[bool]] = defaultdict(set)  # of each split, whether a text may have several labels
        self._domains: dict[str, int] = {}
        self._columns = {"text": array("Q"), "id": array("Q")} | {
            name: array("I") for name in ("split", "domain", "label", "row", "gold")
        }
        self._gold: dict[str, Counter[str]] = defaultdict(Counter)  # of train, or of one table
        self.soft_names = Counter[str]()  # rows by the labels of their probabilities
        self._sample: list[tuple[int, int, Example]] = []
        self._paired = 0
        self._dropped = Counter[str]()
        self._held_out: dict[int, str] = {}  # text -> the latest split that has it; filled only by unless_later

    def add(self, split: str, row: int, example: Example, unless_later: bool = False) -> None:
        """Take a row; `unless_later` leaves out one whose text is in a split that was added before."""
        text = _hash(example.text, example.text_pair or "")
        if unless_later:
            if self._held_out.get(text, split) != split:
                self._dropped[split] += 1
                return
            if split != "train":  # which comes last, and may be large
                self._held_out[text] = split
        self._paired += example.text_pair is not None
        self._counts[split][example.domain].update(example.classes)
        self._rows[split][example.domain] += 1
        self._kinds[split].add(example.labels is not None)
        self._columns["text"].append(text)
        self._columns["id"].append(_hash(split, example.id) if example.id else 0)
        self._columns["split"].append(NAMES.index(split))
        self._columns["domain"].append(self._domains.setdefault(example.domain, len(self._domains)))
        self._columns["label"].append(self._labels.setdefault(example.label, len(self._labels)))
        self._classes[example.label] = example.classes
        self._columns["row"].append(row)
        self._columns["gold"].append(example.gold)
        if split in ("train", WHOLE):
            self._gold[example.domain].update(example.classes if example.gold else ())
        self.soft_names.update(name for name, _ in example.soft_label)
        push = heapq.heappush if len(self._sample) < SAMPLE else heapq.heappushpop
        push(self._sample, (-text, -len(self._columns["text"]), example))

    @property
    def sample(self) -> list[Example]:
        return [example for *_, example in sorted(self._sample, key=lambda entry: -entry[1])]

    def report(self, row_faults: Sequence[str] = ()) -> dict[str, Any]:
        """Counts, duplicates, leaks, contradictory labels, and what follows from the counts.

        Where rows are missing because of `row_faults`, no faults follow from the counts.
        """
        columns = {name: np.asarray(values) for name, values in self._columns.items()}
        texts, ids = columns["text"], columns["id"][columns["id"] > 0]
        counts: Counts = {split: dict(self._counts[split]) for split in NAMES if split in self._counts}
        splits = {split: columns["split"] == NAMES.index(split) for split in counts}
        strata = self._strata(columns) if WHOLE in counts else (np.zeros(0, np.uint64), [])
        labels = sorted({label for domains in counts.values() for by_label in domains.values() for label in by_label})
        repeated = len(ids) - len(np.unique(ids))
        as_train = {("train" if split == WHOLE else split): domains for split, domains in counts.items()}
        faults = [*row_faults]
        faults += [f"id: {repeated} rows have the id of another row of their split"] if repeated else []
        faults += mixed_kinds(self._kinds)
        if not faults:
            known = {label for counted in self._gold.values() for label in counted} or {*self.soft_names}
            rows = {("train" if split == WHOLE else split): domains for split, domains in self._rows.items()}
            pairs = {"lone": len(texts) - self._paired, "paired": self._paired}
            faults += faults_across(as_train, rows, **pairs, more_labels=known)
            faults += foreign_labels(self.soft_names, known)
            faults += self._unscored_if_cut(columns, *strata) if WHOLE in counts else _unscored(counts)
        dropped = [f"{n} rows of {k} dropped: their texts are also in a later split" for k, n in self._dropped.items()]
        return {
            "rows": len(texts),
            "domains": sorted({domain for domains in counts.values() for domain in domains}),
            "labels": labels,
            "counts": counts,
            "rows_by_domain": {split: dict(self._rows[split]) for split in counts},
            "duplicates": {name: int(mask.sum()) - len(np.unique(texts[mask])) for name, mask in splits.items()},
            "leaks": _leaks(texts, splits),
            "contradictions": _contradictions(columns),
            "remarks": dropped
            + remarks(
                as_train, labels, self._drawn_by(columns, *strata) if WHOLE in counts else {}, self._test, self._rows
            ),
            "faults": faults,
        }

    def _strata(self, columns: Mapping[str, NDArray[Any]]) -> tuple[NDArray[np.uint64], list[str]]:
        """By which label the cut draws each row of one table, (N,), as its place among the names [splits.stratum]."""
        pairs = np.stack([columns["domain"], columns["label"]], axis=1)
        unique, rows = np.unique(pairs, axis=0, return_inverse=True)
        domains, labels, counts = [*self._domains], [*self._labels], self._counts[WHOLE]
        each = [stratum(labels[m], self._classes[labels[m]], counts[domains[k]]) for k, m in unique]
        places = {name: place for place, name in enumerate(sorted({*each}))}
        return np.array([places[name] for name in each], np.uint64)[rows.ravel()], [*places]

    def _drawn_by(
        self, columns: Mapping[str, NDArray[Any]], strata: NDArray[np.uint64], names: Sequence[str]
    ) -> dict[str, Counter[str]]:
        """The gold rows of one table by domain, and by the label by which the cut draws them."""
        domains = [*self._domains]
        counts = {domain: Counter[str]() for domain in domains}
        pairs = np.stack([columns["domain"].astype(np.uint64), strata], axis=1)[columns["gold"] > 0]
        for (domain, place), rows in zip(*np.unique(pairs, axis=0, return_counts=True), strict=True):
            counts[domains[domain]][names[place]] = int(rows)
        return counts

    def _unscored_if_cut(
        self, columns: dict[str, NDArray[Any]], strata: NDArray[np.uint64], labels: Sequence[str]
    ) -> list[str]:
        """Domains of one table of which the cut leaves nothing to score [splits.cut_into_splits].

        A text that is on rows of several domains or labels is counted for the first of them.
        """
        columns = {name: values[columns["gold"] > 0] for name, values in (columns | {"stratum": strata}).items()}
        domains = _ranks(self._domains)
        groups = domains[columns["domain"]] * np.uint64(len(labels)) + columns["stratum"]
        pairs = np.unique(np.stack([columns["text"], groups], axis=1), axis=0)
        _, first = np.unique(pairs[:, 0], return_index=True)
        by_domain: dict[int, list[int]] = defaultdict(list)
        for group, texts in zip(*np.unique(pairs[first, 1], return_counts=True), strict=True):
            by_domain[int(group) // len(labels)].append(int(texts))
        scored = {
            domain for domain, texts in by_domain.items() if max(texts) * (self._test or test_percent(texts)) >= 100
        }
        return too_small_to_cut(scored) or [
            f"test will have no rows of {shown(name)}, as its labels have too few texts; add some, or drop the domain"
            for rank, name in enumerate(sorted(self._domains))
            if rank not in scored
        ]


def _ranks(names: Mapping[str, int]) -> NDArray[np.uint64]:
    """The place of each name among the sorted ones."""
    ranks = {name: rank for rank, name in enumerate(sorted(names))}
    return np.array([ranks[name] for name in names], np.uint64)


def _hash(*parts: str) -> int:
    content = "\0".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


def _leaks(texts: NDArray[np.uint64], splits: Mapping[str, NDArray[np.bool_]]) -> list[dict[str, Any]]:
    """For each pair of splits, rows of the later one whose text is also in the earlier one."""
    pairs = combinations([name for name in SPLITS if name in splits], 2)
    counts = {(early, late): int(np.isin(texts[splits[late]], texts[splits[early]]).sum()) for early, late in pairs}
    return [{"rows": n, "of": late, "also_in": early} for (early, late), n in counts.items() if n]


def _contradictions(columns: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Texts that have more than one label: how many, and the rows of the first few."""
    pairs = np.unique(np.stack([columns["text"], columns["label"].astype(np.uint64)], axis=1), axis=0)
    texts, labels = np.unique(pairs[:, 0], return_counts=True)
    torn = texts[labels > 1]
    places = [np.flatnonzero(columns["text"] == text) for text in torn[:SHOWN_ROWS]]
    tables = ["row" if name == WHOLE else f"{name} row" for name in NAMES]
    rows = [[f"{tables[columns['split'][i]]} {columns['row'][i]}" for i in group] for group in places]
    return {"texts": len(torn), "rows": rows}


def _unscored(counts: Counts) -> list[str]:
    """What leaves nothing to score students on; `evaluate.check_scorable` refuses such a run."""
    scored = scored_split(counts)
    if not scored:
        return ["no test or dev split to score on; add dev.jsonl"]
    empty = sorted(set(counts.get("train", {})) - set(counts[scored]))
    return [f"{scored} has no rows of {domain}; add some, or drop the domain" for domain in empty]
