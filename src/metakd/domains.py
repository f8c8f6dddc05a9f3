"""Files -> checked text of several domains, every example with a stable id."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import unicodedata
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from metakd.errors import InputError

SPLITS = ("train", "dev", "test")
SUFFIXES = (".jsonl", ".jsonl.gz")
Text = tuple[str, str | None]


@dataclass(frozen=True)
class Example:
    """One text (or pair of texts) of one domain; `label` is empty in a file without labels."""

    id: str
    text: str
    text_pair: str | None
    label: str
    domain: str


@dataclass(frozen=True)
class MultiDomainDataset:
    """Checked examples by split; `labels` and `domains` are sorted, and their order gives the integer ids."""

    splits: dict[str, list[Example]]
    labels: list[str]
    domains: list[str]
    notices: list[str] = field(default_factory=list)

    @property
    def train(self) -> list[Example]:
        return self.splits["train"]

    @property
    def scored_split(self) -> str | None:
        """The split that results are reported on: test, or dev where there is none."""
        return next((name for name in ("test", "dev") if self.splits.get(name)), None)

    @property
    def has_pairs(self) -> bool:
        return any(example.text_pair is not None for example in self.train)

    def fingerprint(self) -> str:
        """SHA-256 over every field of every example, in order."""
        digest = hashlib.sha256()
        for split in SPLITS:
            for e in self.splits.get(split, []):
                digest.update(json.dumps([split, e.id, e.text, e.text_pair, e.label, e.domain]).encode())
        return digest.hexdigest()


def of_domain(examples: Iterable[Example], domain: str) -> list[Example]:
    return [example for example in examples if example.domain == domain]


def folder_name(domain: str) -> str:
    """The domain's name as one safe path component: percent-encoded but for letters, digits, blank and '_-'."""
    return quote(domain, safe=" ").replace(".", "%2E").replace("~", "%7E")


def load_dataset(path: str | Path, seed: int = 0) -> MultiDomainDataset:
    """Read `path`, a folder with train, dev and test (dev or test may be missing) or one file that is cut into them.

    Raises one InputError that lists every fault with file, row and field.
    """
    path = Path(path)
    notices: list[str] = []
    if path.is_dir():
        splits = _read_folder(path)
    else:
        splits = cut_into_splits(read_examples(path, labelled=True), seed)
        sizes = ", ".join(f"{name} {len(rows)}" for name, rows in splits.items())
        notices.append(f"{path.name} was cut into splits by domain and label with seed {seed}: {sizes}")
    _check_across(path, splits)
    notices += _leaks(splits)
    train = splits["train"]
    return MultiDomainDataset(
        splits=splits,
        labels=sorted({e.label for e in train}),
        domains=sorted({e.domain for e in train}),
        notices=notices,
    )


def read_examples(path: Path, *, labelled: bool) -> list[Example]:
    """All rows of one file; raises one InputError with every fault. Without `labelled`, only `text` is required."""
    faults: list[str] = []
    examples = []
    seen: Counter[str] = Counter()
    for row, values in _read_rows(path, faults):
        example = _check_row(f"{path.name}, row {row}", values, labelled, faults)
        if example is not None:
            examples.append(example if example.id else replace(example, id=_content_id(example, seen)))
    for name, count in Counter(e.id for e in examples).items():
        if count > 1:
            faults.append(f"{path.name}: id {name!r} stands on {count} rows; make ids unique or leave them out")
    if not examples and not faults:
        faults.append(f"{path.name}: no rows")
    if faults:
        raise InputError.collect(str(path), faults)
    return examples


def cut_into_splits(examples: Sequence[Example], seed: int) -> dict[str, list[Example]]:
    """80, 10 and 10 % of the texts of each domain and label, by seed; groups under ten all go to train.

    A text that stands on several rows keeps them in one split.
    """
    groups: dict[tuple[str, str], dict[Text, None]] = defaultdict(dict)
    for example in examples:
        groups[example.domain, example.label][_text_of(example)] = None
    split_of: dict[Text, str] = {}
    for key in sorted(groups):
        members = [text for text in groups[key] if text not in split_of]
        random.Random(f"{seed}/{key}").shuffle(members)
        tenth = len(members) // 10
        split_of |= dict.fromkeys(members, "train")
        split_of |= dict.fromkeys(members[:tenth], "dev") | dict.fromkeys(members[tenth : 2 * tenth], "test")
    return {name: [e for e in examples if split_of[_text_of(e)] == name] for name in SPLITS}


def _text_of(example: Example) -> Text:
    return example.text, example.text_pair


def _leaks(splits: dict[str, list[Example]]) -> list[str]:
    """A notice for each held-out split that repeats texts of train."""
    known = {_text_of(e) for e in splits["train"]}
    counts = {name: sum(_text_of(e) in known for e in splits.get(name, [])) for name in ("dev", "test")}
    return [
        f"{count} of {len(splits[name])} {name} rows stand word for word in train, which flatters every score"
        for name, count in counts.items()
        if count
    ]


def _read_folder(path: Path) -> dict[str, list[Example]]:
    found = {name: [p for s in SUFFIXES if (p := path / f"{name}{s}").is_file()] for name in SPLITS}
    faults = [
        f"{name}: stands there as {files[0].name} and {files[1].name}; keep one"
        for name, files in found.items()
        if len(files) > 1
    ]
    if not found["train"]:
        faults.append(f"no train.jsonl or train.jsonl.gz in it; files there: {_listing(path)}")
    if faults:
        raise InputError.collect(str(path), faults)
    return {name: read_examples(files[0], labelled=True) for name, files in found.items() if files}


def _listing(path: Path) -> str:
    names = sorted(p.name for p in path.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "none"


def _read_rows(path: Path, faults: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder")
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"{path}: expected one of {', '.join(SUFFIXES)}")
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as lines:
            for row, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    values = json.loads(line.decode("utf-8-sig" if row == 1 else "utf-8"))
                except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
                    faults.append(f"{path.name}, row {row}: not a line of JSON in UTF-8 ({error})")
                    continue
                if isinstance(values, dict):
                    yield row, values
                else:
                    faults.append(f"{path.name}, row {row}: expected an object, found {type(values).__name__}")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read to its end ({error})") from None


def _check_row(where: str, values: dict[str, Any], labelled: bool, faults: list[str]) -> Example | None:
    before = len(faults)
    needed = ("text", "label", "domain") if labelled else ("text",)
    missing = [name for name in needed if values.get(name) is None]
    if missing:
        faults.append(f"{where}: no {' and no '.join(missing)}; fields there: {', '.join(values) or 'none'}")
    for name in ("text", "text_pair"):
        value = values.get(name)
        if value is not None and not isinstance(value, str):
            faults.append(f"{where}, {name}: expected text, found {value!r}")
        elif isinstance(value, str) and not _has_content(value):
            faults.append(f"{where}, {name}: is empty; drop the row or give it text")
    for name in ("label", "domain", "id"):
        value = values.get(name)
        if value is not None and (not isinstance(value, str | int) or not _has_content(str(value))):
            faults.append(f"{where}, {name}: expected a name or a whole number, found {value!r}")
    if len(faults) > before:
        return None

    def name_of(key: str) -> str:
        return str(values[key]) if values.get(key) is not None else ""

    return Example(name_of("id"), values["text"], values.get("text_pair"), name_of("label"), name_of("domain"))


def _has_content(text: str) -> bool:
    """Anything but white space and control characters, and sound Unicode (a lone surrogate cannot be written)."""
    if any("\ud800" <= c <= "\udfff" for c in text):
        return False
    return any(not c.isspace() and unicodedata.category(c)[0] != "C" for c in text)


def _content_id(example: Example, seen: Counter[str]) -> str:
    """An id from the text itself, so that it survives a new order of rows; a repeated text gets -2, -3, ..."""
    parts = [example.domain, example.label, example.text, example.text_pair]
    name = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    seen[name] += 1
    return name if seen[name] == 1 else f"{name}-{seen[name]}"


def _check_across(path: Path, splits: dict[str, list[Example]]) -> None:
    faults = []
    train = splits["train"]
    known = {"label": {e.label for e in train}, "domain": {e.domain for e in train}}
    if len(known["label"]) < 2:
        faults.append(f"train: one label only ({', '.join(known['label'])}); a classifier needs at least two")
    for split, examples in splits.items():
        if split == "train":
            continue
        for name, values in known.items():
            strange = Counter(v for e in examples if (v := getattr(e, name)) not in values)
            faults += [f"{split}, {name}: {v!r} ({n} rows) does not occur in train" for v, n in strange.items()]
    if len({e.text_pair is None for rows in splits.values() for e in rows}) > 1:
        lone = sum(e.text_pair is None for rows in splits.values() for e in rows)
        faults.append(f"text_pair: missing on {lone} rows and present on others; give it to all rows or to none")
    if faults:
        raise InputError.collect(str(path), faults)
