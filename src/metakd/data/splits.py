"""Train, dev and test: splitting by domain and label, held-out rows, and texts that are in two splits."""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from metakd.data.schema import SPLITS, Example, Inputs
from metakd.utils.errors import InputError, shown

DEV, TEST = 10, 10  # percent of one file
ENOUGH, MOST_TEST = 50, 25  # test texts of a domain that --cut auto aims at, and the most percent for them
HELD_OUT = 10  # percent of the training texts that held-out batches are drawn from


def scored_split(splits: Mapping[str, Any]) -> str | None:
    """The split that results are reported on: test, or dev if there is no test."""
    return next((name for name in ("test", "dev") if splits.get(name)), None)


def of_domain(examples: Iterable[Example], domain: str) -> list[Example]:
    return [example for example in examples if example.domain == domain]


def by_domain(examples: Iterable[Example]) -> dict[str, list[Example]]:
    domains: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        domains[example.domain].append(example)
    return dict(domains)


def sample_by_domain(examples: Sequence[Example], most: int, seed: int) -> list[Example]:
    """About `most` examples, by seed: as many of each domain, or all that it has; at least two, in any case."""
    domains = by_domain(examples)
    each = max(2, most // max(1, len(domains)))
    draw = random.Random(seed)
    return [e for rows in domains.values() for e in (rows if len(rows) <= each else draw.sample(rows, each))]


def cut_into_splits(
    examples: Sequence[Example], seed: int, dev: int = DEV, test: int | None = None, *, gold_alone: bool = True
) -> dict[str, list[Example]]:
    """`dev` and `test` percent of the texts of each domain and label, by seed; the rest goes to train.

    Of several labels, the rarest counts. All rows of a text go to one split; with `gold_alone`, those without a gold
    label to train or, if it is scored, to none. If train would have no text of a domain's label, it gets all of them.
    With `test` None, test has TEST percent, or more of a domain that would have under ENOUGH texts [test_percent].
    """
    groups: dict[tuple[str, str], dict[Inputs, None]] = defaultdict(dict)
    counts = count_rows(examples)
    for example in (e for e in examples if e.gold or not gold_alone):
        rarest = stratum(example.label, example.classes, counts[example.domain])
        groups[example.domain, rarest][example.inputs] = None
    sizes: dict[str, list[int]] = defaultdict(list)
    for (domain, _), texts in groups.items():
        sizes[domain].append(len(texts))
    split_of: dict[Inputs, str] = {}
    for key in sorted(groups):
        members = [text for text in groups[key] if text not in split_of]
        random.Random(f"{seed}/{key}").shuffle(members)
        percent = test_percent(sizes[key[0]]) if test is None else test
        num_dev, num_test = len(members) * dev // 100, len(members) * percent // 100
        split_of |= dict.fromkeys(members, "train") | dict.fromkeys(members[:num_dev], "dev")
        split_of |= dict.fromkeys(members[num_dev : num_dev + num_test], "test")
    texts_with: dict[tuple[str, str], dict[Inputs, None]] = defaultdict(dict)
    for example in (e for e in examples if e.gold or not gold_alone):
        for label in example.classes:
            texts_with[example.domain, label][example.inputs] = None
    for texts in texts_with.values():
        if all(split_of[text] != "train" for text in texts):
            split_of |= dict.fromkeys(texts, "train")
    splits: dict[str, list[Example]] = {name: [] for name in SPLITS}
    for e in examples:
        split = split_of.get(e.inputs, "train")
        if e.gold or not gold_alone or split == "train":
            splits[split].append(e)
    return splits


def stratum(label: str, classes: Sequence[str], counts: Mapping[str, int]) -> str:
    """By which label a text is drawn: its own; of several `classes`, that with the least of its domain's `counts`."""
    return min(classes, key=lambda name: (counts[name], name)) if classes else label


def test_percent(texts: Collection[int]) -> int:
    """Percent of a domain's texts that test gets: TEST, or as many as give it ENOUGH, but at most MOST_TEST.

    `texts` are counted by label; of each label, less than one text is lost to rounding.
    """
    return max(TEST, min(MOST_TEST, math.ceil(100 * (ENOUGH + len(texts)) / max(1, sum(texts)))))


def parse_cut(cut: str) -> tuple[int, int | None]:
    """Percent for dev and for test of '80/10/10'; of 'auto', DEV and None. Raises InputError for anything else."""
    if cut == "auto":
        return DEV, None
    parts = cut.split("/")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts) or sum(map(int, parts)) != 100:
        what = "write percent for train, dev and test that add up to 100, as in 80/10/10, or auto"
        raise InputError(f"--cut = {shown(cut)}: {what}")
    train, dev, test = map(int, parts)
    if not train or not test:
        raise InputError(f"--cut = {shown(cut)}: train and test need at least one percent each")
    return dev, test


def hold_out(train: Sequence[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """The rows left for training, and HELD_OUT percent of the texts of each domain and label, drawn by seed.

    Fewer than 100 / HELD_OUT texts hold out none; InputError names domains that would hold out only one label.
    """
    cut = cut_into_splits(train, seed, dev=HELD_OUT, test=0)
    labels, held_out = count_rows(train), count_rows(cut["dev"])
    too_small = [domain for domain in sorted(labels) if len(held_out[domain]) < min(2, len(labels[domain]))]
    if too_small:
        raise InputError(
            f"train, domain {', '.join(map(repr, too_small))}: a held-out split needs two labels with "
            f"{100 // HELD_OUT} texts each; add rows, or choose a --method that needs no held-out split"
        )
    return cut["train"], cut["dev"]


def without_repeats(splits: Mapping[str, Sequence[Example]]) -> dict[str, list[Example]]:
    """The splits with one row of each text, label and domain: the first, or the first with a gold label.

    It gets the soft label of another, if it has none.
    """
    kept: dict[str, list[Example]] = {}
    for name, rows in splits.items():
        first: dict[tuple[Inputs, str, str], Example] = {}
        for e in rows:
            key = e.inputs, e.label, e.domain
            known = first.setdefault(key, e)
            better = e if e.gold and not known.gold else known
            soft = known if known.soft_label else e
            first[key] = replace(better, soft_label=soft.soft_label, hard=soft.hard)
        kept[name] = [*first.values()]
    return kept


def too_small_to_cut(scored: Collection[Any]) -> list[str]:
    """The fault of one file of which the cut leaves nothing to score; `scored` are rows or domains that test has."""
    if scored:
        return []
    return ["no label has enough texts in one domain for test to get one; add rows, files by split, or another --cut"]


def leaks(splits: Mapping[str, Sequence[Example]]) -> dict[str, list[Example]]:
    """The rows of each held-out split whose text is also in train; splits without any are left out."""
    known = {e.inputs for e in splits["train"]}
    leaked = {name: [e for e in splits.get(name, []) if e.inputs in known] for name in ("dev", "test")}
    return {name: rows for name, rows in leaked.items() if rows}


def without_leaks(splits: Mapping[str, Sequence[Example]]) -> dict[str, list[Example]]:
    """The splits without texts that are also in a later one, so that test stays as it is."""
    kept: dict[str, list[Example]] = {}
    later: set[Inputs] = set()
    for name in reversed([name for name in SPLITS if name in splits]):
        kept[name] = [e for e in splits[name] if e.inputs not in later]
        later |= {e.inputs for e in splits[name]}
    return dict(reversed(kept.items()))


def count_rows(examples: Iterable[Example]) -> dict[str, Counter[str]]:
    """Rows by domain and label; one with several labels counts for each."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for example in examples:
        counts[example.domain].update(example.classes)
    return counts
