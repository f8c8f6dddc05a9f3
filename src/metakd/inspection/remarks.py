"""What in the counts of the data will weaken or distort the results."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from metakd.data.faults import Counts
from metakd.data.labels import joined_labels
from metakd.data.schema import LEAST_CLASSES
from metakd.data.splits import scored_split, test_percent
from metakd.utils.errors import listed, shown

NAMED = 3  # labels that a message names
CANNOT_CHOOSE = "; unless --labels shared is set, a student cannot choose what its domain lacks"
FEWEST = 5  # training rows of a class below which it is hardly learnt
LIST = re.compile(r"""\[(\s*["'].*["']\s*)?\]""")  # in one string
FEW = 50  # held-out rows of a domain below which a score says little: ±14 points at 95 %
ABSENT = ("na", "n/a", "nan", "none", "null", "-", "?")
TWINS = str.maketrans("авекмнорстухіјѕαβεζηικμνορτυχ‐‑–—−‘’", "abekmhopctyxijsabezhikmnoptyx-----''")  # Cyrillic, Greek
CAPITALS = {ord(chr(c).upper()): ord(chr(twin).upper()) for c, twin in TWINS.items() if chr(c).isalpha()}
INVISIBLE = re.compile("[\u034f\u115f\u1160\u2800\u3164\ufe00-\ufe0f]")  # besides category Cf


def remarks(
    counts: Counts,
    labels: Sequence[str],
    whole: Mapping[str, Mapping[str, int]] | None = None,
    test: int | None = None,
    rows: Mapping[str, Mapping[str, int]] | None = None,
) -> list[str]:
    """What in the counts will weaken or distort the results.

    `whole` are the gold rows by domain and label of a table that is yet to be split, `test` percent of them to test.
    `rows` are those of each split and domain, if a row may count for several labels or for none.
    """
    domains = sorted({domain for by_domain in counts.values() for domain in by_domain})
    messages = [*_odd_names("label", labels), *_odd_names("domain", domains)]
    messages += _joined_labels(labels)
    messages += _labels_of_domains(counts.get("train", {}), labels)
    messages += _rare_labels(counts.get("train", {}))
    scored = scored_split(counts)
    for domain, by_label in sorted(counts.get(scored or "", {}).items()):
        messages += _scored_labels(domain, str(scored), by_label, [*counts.get("train", {}).get(domain, labels)])
        if (scorable := (rows or {}).get(str(scored), {}).get(domain, sum(by_label.values()))) < FEW:
            messages.append(f"{domain} has {scorable} rows in {scored}: too few to score (under {FEW})")
    for domain, by_label in sorted((whole or {}).items()):
        percent = test or test_percent(by_label.values())
        if (share := sum(count * percent // 100 for count in by_label.values())) < FEW:
            messages.append(f"{domain} will have about {share} rows in test: too few to score (under {FEW})")
    return messages


def _joined_labels(labels: Sequence[str]) -> list[str]:
    """A message where labels look like several in one string."""
    if lists := [label for label in labels if LIST.fullmatch(label)]:
        looks = f"label {shown(lists[0])} looks like a list ({_counted(lists)})"
        return [f"{looks}; if texts may have several labels, name their column with --columns labels=COLUMN"]
    separator, joined = joined_labels(labels)
    if not joined:
        return []
    looks = f"label {shown(joined[0])} looks like several in one string ({_counted(joined)})"
    return [f"{looks}; if texts may have several labels, add --label-separator '{separator}'"]


def _counted(labels: Sequence[str]) -> str:
    return "one label does" if len(labels) == 1 else f"{len(labels)} labels do"


def _rare_labels(train: Mapping[str, Mapping[str, int]]) -> list[str]:
    """One message on all classes of a domain that have hardly any training rows."""
    counts = [(domain, label, n) for domain, each in sorted(train.items()) for label, n in each.items()]
    rare = [f"{label} of {domain} ({n})" for domain, label, n in counts if n < FEWEST]
    return [f"classes with under {FEWEST} training rows, which are hardly learnt: {listed(rare)}"] if rare else []


def _labels_of_domains(train: Mapping[str, Mapping[str, int]], labels: Sequence[str]) -> list[str]:
    """Labels that domains do not have in train; one message for all, where they differ in many."""
    missing = {domain: [label for label in labels if label not in train[domain]] for domain in sorted(train)}
    many = {domain: len(absent) for domain, absent in missing.items() if len(absent) > NAMED}
    messages = [
        f"{domain} has no rows of {' or '.join(absent)} in train"
        + CANNOT_CHOOSE * (len(train[domain]) >= LEAST_CLASSES)
        for domain, absent in missing.items()
        if absent and domain not in many
    ]
    if many:
        common = sum(count > 1 for count in Counter(label for each in train.values() for label in each).values())
        each = listed([f"{domain} {len(labels) - count}" for domain, count in many.items()])
        several = f"{common} of them are in several domains" if common else "none of them is in several domains"
        messages.append(f"domains have labels of their own ({each} of {len(labels)}; {several}){CANNOT_CHOOSE}")
    return messages


def _scored_labels(domain: str, split: str, by_label: Mapping[str, int], in_train: Sequence[str]) -> list[str]:
    """Labels of a domain that are in train or in the scored split alone."""
    messages, missing = list[str](), [label for label in in_train if label not in by_label]
    if missing:
        names = " or ".join(missing) if len(missing) <= NAMED else f"{len(missing)} of its labels"
        messages.append(f"{domain} has no rows of {names} in {split}")
    foreign = {label: count for label, count in by_label.items() if label not in in_train}
    if foreign and len(in_train) >= LEAST_CLASSES:
        messages.append(
            f"{sum(foreign.values())} rows of {domain} in {split} have a label that the domain lacks in train "
            f"({listed(sorted(foreign))}): unless --labels shared is set, no model can be right there"
        )
    return messages


def _odd_names(what: str, names: Sequence[str]) -> list[str]:
    """Messages for names that look the same, and for names that usually mean a missing value."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[_folded(name)].append(name)
    groups = [" and ".join(_distinct(group)) for group in alike.values() if len(group) > 1]
    absent = [name for name in names if name.casefold() in ABSENT]
    return [
        *(f"{what}s {group} look alike, but count as different {what}s; use one spelling" for group in groups),
        *(f"{what} {name!r} looks like a missing value, but counts as a {what}" for name in absent),
    ]


def _distinct(names: Sequence[str]) -> list[str]:
    """The names in quotes, with escapes for characters that could not be told apart."""
    texts = [repr(name) for name in names]
    seen = {unicodedata.normalize("NFC", INVISIBLE.sub("", name)).translate(TWINS | CAPITALS) for name in names}
    return texts if len(seen) == len(texts) else [ascii(name) for name in names]


def _folded(name: str) -> str:
    """A key that is the same for 'Pos' and 'pos', for composed and decomposed letters, for '1', '1.0' and '1,0', for
    letters of other scripts that look Latin, and with or without invisible characters and doubled blanks."""
    visible = INVISIBLE.sub("", "".join(c for c in name if unicodedata.category(c) != "Cf"))
    folded = " ".join(unicodedata.normalize("NFKC", visible).casefold().translate(TWINS).split())
    try:
        return folded if "_" in folded else str(float(folded.replace(",", ".")))
    except ValueError:
        return folded
