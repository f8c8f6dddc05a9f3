"""What is in the data: counts, lengths, repeats, leaks, contradictions."""

from __future__ import annotations

import hashlib
import heapq
import unicodedata
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from metakd.config.settings import Settings
from metakd.data.dataset import Counts, MultiDomainDataset, faults_across
from metakd.data.examples import read_table
from metakd.data.schema import SPLITS, Example
from metakd.data.sources import open_source
from metakd.data.splits import LEAST_TO_CUT, scored_split, too_small_to_cut
from metakd.inspection.terms import characteristic_terms
from metakd.utils.validation import open_tokenizer

SAMPLE = 20_000  # rows that lengths and terms are taken of, where there are more
FEW = 50  # held-out rows of a domain below which a score says little: ±14 points at 95 %
SHOWN_ROWS = 5
ABSENT = ("na", "n/a", "nan", "none", "null", "-", "?")
WHOLE = "all"  # the name of a file that is yet to be cut into splits


def inspect_data(
    data: Any,
    *,
    columns: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
    data_config: str | None = None,
    drop_leaks: bool = False,
    tokenizer: Path | None = None,
    max_length: int = Settings.model_fields["max_length"].default,
) -> dict[str, Any]:
    """Look at data as `domains.load_dataset` reads it, in one pass and without keeping its texts.

    Faults do not end it: they are under `faults` in what is returned. `tokenizer` is the tokenizer.json in whose
    tokens lengths are counted; without one they are in words. Raises InputError for what cannot be read at all.
    """
    source = open_source(data, encoding, data_config)
    inspector, faults = Inspector(), list[str]()
    splits = [split for split in ("", *SPLITS) if split in source.tables]
    for split in reversed(splits) if drop_leaks else splits:  # what is dropped stands in a later split
        for row, example in read_table(source.tables[split], faults, labelled=True, columns=columns):
            inspector.add(split or WHOLE, row, example, unless_later=drop_leaks)
        inspector.end_split()
    report = inspector.report()
    return report | {
        "data": source.name,
        "lengths": lengths(inspector.sample, open_tokenizer(tokenizer) if tokenizer else None, max_length),
        "terms": characteristic_terms(inspector.sample),
        "faults": faults + report["faults"],
    }


def inspect_dataset(data: MultiDomainDataset) -> dict[str, Any]:
    """The same of data in memory, without lengths, terms and numbers of rows."""
    inspector = Inspector()
    for split in SPLITS:
        for example in data.splits.get(split, []):
            inspector.add(split, 0, example)
    report = inspector.report()
    report["contradictions"]["rows"] = []
    return report


class Inspector:
    """Takes rows one by one and keeps 32 bytes of each, and a sample of whole rows drawn by the hash of their text."""

    def __init__(self) -> None:
        self._codes: dict[str, dict[str, int]] = {"split": {}, "domain": {}, "label": {}}
        self._columns = {name: array("I") for name in ("split", "domain", "label", "row")}
        self._texts = array("Q")
        self._ids = array("Q")
        self._sample: list[tuple[int, int, Example]] = []
        self._paired = 0
        self._dropped = Counter[str]()
        self._later: set[int] = set()  # texts of the splits that have ended
        self._now: set[int] = set()

    def add(self, split: str, row: int, example: Example, unless_later: bool = False) -> None:
        """Take a row; `unless_later` leaves out one whose text stands in a split that has ended."""
        text = _hash(example.text, example.text_pair or "")
        if unless_later:
            if text in self._later:
                self._dropped[split] += 1
                return
            if split != "train":  # which ends last, and may be large
                self._now.add(text)
        self._paired += example.text_pair is not None
        for name, value in (("split", split), ("domain", example.domain), ("label", example.label)):
            codes = self._codes[name]
            self._columns[name].append(codes.setdefault(value, len(codes)))
        self._columns["row"].append(row)
        self._texts.append(text)
        self._ids.append(_hash(split, example.id) if example.id else 0)
        entry = (-text, -len(self._texts), example)
        if len(self._sample) < SAMPLE:
            heapq.heappush(self._sample, entry)
        elif entry > self._sample[0]:
            heapq.heapreplace(self._sample, entry)

    def end_split(self) -> None:
        self._later |= self._now
        self._now.clear()

    @property
    def sample(self) -> list[Example]:
        return [example for *_, example in sorted(self._sample, key=lambda entry: -entry[1])]

    def report(self) -> dict[str, Any]:
        """Counts, repeats, leaks, contradictions, and what follows from the counts."""
        columns = {name: np.frombuffer(values, dtype=np.uint32) for name, values in self._columns.items()}
        texts, ids = (np.frombuffer(values, dtype=np.uint64) for values in (self._texts, self._ids))
        names = {name: list(codes) for name, codes in self._codes.items()}
        counts = self._counts(columns, names)
        splits = {name: columns["split"] == names["split"].index(name) for name in counts}
        labels = sorted(names["label"])
        found: dict[str, Any] = {
            "rows": len(texts),
            "domains": sorted(names["domain"]),
            "labels": labels,
            "counts": counts,
            "duplicates": {name: int(mask.sum()) - len(np.unique(texts[mask])) for name, mask in splits.items()},
            "leaks": _leaks(texts, splits),
            "contradictions": _contradictions(texts, columns, names),
        }
        repeated = len(ids[ids > 0]) - len(np.unique(ids[ids > 0]))
        faults = [f"id: {repeated} rows repeat the id of another row of their split"] if repeated else []
        as_train = {("train" if split == WHOLE else split): domains for split, domains in counts.items()}
        faults += faults_across(as_train, lone=len(texts) - self._paired, paired=self._paired) if len(texts) else []
        faults += too_small_to_cut(counts[WHOLE]) if WHOLE in counts else _unscored(counts)
        told = [f"{n} rows of {name} dropped: their texts stand in a later split" for name, n in self._dropped.items()]
        told += remarks(as_train, labels, whole=WHOLE in counts)
        return found | {"remarks": told, "faults": faults}

    @staticmethod
    def _counts(columns: Mapping[str, Any], names: Mapping[str, list[str]]) -> dict[str, dict[str, dict[str, int]]]:
        """Rows by split, domain and label."""
        keys = ("split", "domain", "label")
        cells, numbers = np.unique(np.stack([columns[key] for key in keys], axis=1), axis=0, return_counts=True)
        found: dict[str, dict[str, dict[str, int]]] = {}
        for cell, number in zip(cells.tolist(), numbers.tolist(), strict=True):
            split, domain, label = (names[key][code] for key, code in zip(keys, cell, strict=True))
            found.setdefault(split, {}).setdefault(domain, {})[label] = number
        return {split: found[split] for split in (*SPLITS, WHOLE) if split in found}


def _hash(*parts: str) -> int:
    content = "\0".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


def _leaks(texts: NDArray[np.uint64], splits: Mapping[str, NDArray[np.bool_]]) -> list[dict[str, Any]]:
    """For each pair of splits, rows of the later one whose text stands in the earlier one."""
    ordered = [name for name in SPLITS if name in splits]
    pairs = [(early, late) for i, early in enumerate(ordered) for late in ordered[i + 1 :]]
    counts = {pair: int(np.isin(texts[splits[pair[1]]], texts[splits[pair[0]]]).sum()) for pair in pairs}
    return [{"rows": n, "of": late, "stand_in": early} for (early, late), n in counts.items() if n]


def _contradictions(
    texts: NDArray[np.uint64], columns: Mapping[str, Any], names: Mapping[str, list[str]]
) -> dict[str, Any]:
    """Texts that stand with more than one label: how many, and the rows of the first few."""
    pairs = np.unique(np.stack([texts, columns["label"].astype(np.uint64)], axis=1), axis=0)
    values, labels = np.unique(pairs[:, 0], return_counts=True)
    torn = values[labels > 1]
    shown = [np.flatnonzero(texts == value) for value in torn[:SHOWN_ROWS]]
    rows = [[f"{names['split'][columns['split'][i]]} row {columns['row'][i]}" for i in places] for places in shown]
    return {"texts": len(torn), "rows": rows}


def remarks(counts: Counts, labels: Sequence[str], whole: bool = False) -> list[str]:
    """What in the counts will weaken or spoil the results; `whole` data are yet to be cut into splits."""
    found = [*_odd_names("label", labels), *_odd_names("domain", sorted({d for own in counts.values() for d in own}))]
    scored = scored_split(counts)
    for split in [split for split in counts if split in ("train", scored)]:
        for domain, own in sorted(counts[split].items()):
            missing = [label for label in labels if label not in own]
            if missing:
                found.append(f"{domain} has no {' and no '.join(missing)} in {split}")
            if split == scored and sum(own.values()) < FEW:
                found.append(f"{domain} has {sum(own.values())} rows in {split}: too few to score (under {FEW})")
    if whole:
        for domain, own in sorted(counts["train"].items()):
            share = sum(count // LEAST_TO_CUT for count in own.values())
            if share < FEW:
                found.append(f"{domain} will have about {share} rows in test: too few to score (under {FEW})")
    return found


def _unscored(counts: Counts) -> list[str]:
    """What leaves nothing to score a student by, for which `scoring.check_scorable` refuses a run."""
    scored = scored_split(counts)
    if not scored:
        return ["neither test nor dev, so there is nothing to score on; add dev.jsonl"]
    empty = sorted(set(counts.get("train", {})) - set(counts[scored]))
    return [f"{scored} has no rows of {domain}; add some, or drop the domain" for domain in empty]


def _odd_names(what: str, names: Sequence[str]) -> list[str]:
    """Names that are one to a reader, and names that mean that there is none."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_folded(name), []).append(name)
    found = [
        f"{what}s {' and '.join(map(repr, group))} look alike and are taken for different ones"
        for group in alike.values()
        if len(group) > 1
    ]
    absent = [name for name in names if name.casefold() in ABSENT]
    return found + [f"{what} {name!r} looks like a missing value and is taken for a {what}" for name in absent]


def _folded(name: str) -> str:
    """The same for 'Pos' and 'pos', for composed and decomposed letters, for '1', '1.0' and '1,0'."""
    try:
        return str(float(name.replace(",", ".")))
    except ValueError:
        return unicodedata.normalize("NFKC", name).casefold()


def lengths(sample: Sequence[Example], tokenizer: Tokenizer | None, limit: int) -> dict[str, Any]:
    """Median, 95th percentile and maximum by domain, and the share that is longer than `limit` and so is cut."""
    if tokenizer is None:
        counted = [len(f"{e.text} {e.text_pair or ''}".split()) for e in sample]
    else:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        inputs = [e.text if e.text_pair is None else (e.text, e.text_pair) for e in sample]
        counted = [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(inputs)]
    by_domain: dict[str, list[int]] = {}
    for example, count in zip(sample, counted, strict=True):
        by_domain.setdefault(example.domain, []).append(count)
    return {
        "unit": "words" if tokenizer is None else "tokens",
        "limit": limit,
        "sampled_rows": len(sample),
        "domains": {
            domain: {
                "median": int(np.median(own)),
                "p95": int(np.percentile(own, 95)),
                "longest": max(own),
                "over_limit": round(float(np.mean(np.array(own) > limit)), 4),
            }
            for domain, own in sorted(by_domain.items())
        },
    }
