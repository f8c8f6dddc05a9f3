"""Raw releases of the papers' datasets -> the papers' splits."""

import json
import re
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from metakd.data.examples import open_file, with_ids
from metakd.data.readers import Values, open_bytes
from metakd.data.sources import HUB_ID, Table, hub_tables, table_of
from metakd.utils.artifacts import fingerprint, step_folder, write_text
from metakd.utils.errors import InputError, as_input_error, raise_faults, require, shown


class Release(NamedTuple):
    """Rows by split, with the fields that metakd reads, and notices about them."""

    splits: dict[str, list[Values]]
    notices: list[str]


AMAZON_DOMAINS = {"books": "books", "dvd": "dvd", "electronics": "electronics", "kitchen_&_housewares": "kitchen"}
AMAZON_LABELS = ("positive", "negative")
AMAZON_SEED = 11111
FOLDS = 10
AMAZON_REVIEWS = 1000  # of each label in each domain
REVIEW_FILE = 64 * 2**20  # most bytes of one file; those in the release have about one million
GZIP_MAGIC = b"\x1f\x8b"
REVIEW_TEXT = re.compile(r"<review_text>(.*?)</review_text>", re.S)

MULTINLI_PREFIX = "multinli_1.0_"
MULTINLI_SPLITS = {"train": "train", "dev_matched": "dev", "validation_matched": "dev"}
MULTINLI_SPLITS |= {"dev_mismatched": "dev_mismatched", "validation_mismatched": "dev_mismatched"}
MULTINLI_FIELDS = {"sentence1": "text", "premise": "text", "sentence2": "text_pair", "hypothesis": "text_pair"}
MULTINLI_FIELDS |= {"gold_label": "label", "label": "label", "genre": "domain"}
NO_LABEL = ("-", None)  # the annotators did not agree


def amazon(source: str) -> Release:
    """The Multi-Domain Sentiment Dataset [Blitzer, Dredze and Pereira, ACL 2007] in the split of Meta-KD.

    `source` is the release's .tar.gz, or the folder it unpacks to. All domains' reviews are pooled, positive before
    negative, and shuffled; test is the first of ten folds stratified by label, dev the first of ten of the rest.
    """
    pandas, selection = require("pandas", "train"), require("sklearn.model_selection", "train")
    reviews = {key: list(_reviews(content)) for key, content in _review_files(Path(source)).items()}
    faults = [f"{len(texts)} reviews in {'/'.join(key)}.review" for key, texts in reviews.items() if len(texts) < FOLDS]
    faults += [f"an empty review in {'/'.join(key)}.review" for key, texts in reviews.items() if not all(texts)]
    raise_faults(f"{source}: not the release with <review_text> blocks", faults)
    rows = [
        {"text": text, "label": label, "domain": AMAZON_DOMAINS[folder]}
        for (folder, label), texts in reviews.items()
        for text in texts
    ]
    pooled = pandas.DataFrame(rows).sample(frac=1, random_state=AMAZON_SEED)

    def first_fold(frame: Any) -> tuple[Any, Any]:
        folds = selection.StratifiedKFold(FOLDS, shuffle=True, random_state=AMAZON_SEED)
        others, fold = next(folds.split(frame, frame["label"]))
        return frame.iloc[others], frame.iloc[fold]

    rest, test = first_fold(pooled)
    train, dev = first_fold(rest)
    is_whole = all(len(texts) == AMAZON_REVIEWS for texts in reviews.values())
    notices = [] if is_whole else [f"not the paper's data, which has {AMAZON_REVIEWS} reviews per label"]
    return Release({n: f.to_dict("records") for n, f in {"train": train, "dev": dev, "test": test}.items()}, notices)


def multinli(source: str) -> Release:
    """MultiNLI [Williams, Nangia and Bowman, NAACL 2018]: pairs of texts, genres as domains, the matched part as dev.

    `source` is the folder of the release, or its id on the hub (nyu-mll/multi_nli). Pairs without an agreed label are
    dropped and counted. The mismatched part, whose genres are not in train, is written beside the splits.
    """
    faults: list[str] = []
    release = Release({}, [])
    for split, table in _multinli_tables(source).items():
        rows = [{f: row[name] for name, f in MULTINLI_FIELDS.items() if name in row} for _, row in table.rows(faults)]
        kept = [row for row in rows if row.get("label") not in NO_LABEL]
        if not kept:
            faults.append(f"{split}: no row has a label; the fields must be those of MultiNLI")
        if lone := sum(not row.get("text_pair") for row in kept):
            faults.append(f"{split}: {lone} of {len(kept)} rows have no sentence2 (or hypothesis); all of MultiNLI do")
        release.splits[split] = kept
        if len(kept) < len(rows):
            release.notices.append(f"{len(rows) - len(kept)} of {len(rows)} rows of {split} dropped: no agreed label")
    raise_faults(source, faults)
    return release


RELEASES: dict[str, Callable[[str], Release]] = {"amazon": amazon, "multinli": multinli}


def prepare(name: str, source: str, output: Path) -> Release:
    """Write the release's splits as JSONL into the folder `output`; raises InputError for anything else."""
    if name not in RELEASES:
        raise InputError(f"{name}: no such release; choose one of {', '.join(RELEASES)}")
    if not output.name:
        raise InputError(f"--output {output}: expected the name of a new folder")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} already exists; choose another --output")
    release = RELEASES[name](source)
    faults: list[str] = []
    for split, rows in release.splits.items():
        with_ids(table_of(split, partial(iter, rows)), faults)
    raise_faults(f"{source}, in the rows to write", faults)
    facts = {"release": name, "rows": {s: len(rows) for s, rows in release.splits.items()}, "notices": release.notices}
    with step_folder(output, "data", fingerprint(name, release.splits), facts) as unfinished:
        for split, rows in release.splits.items():
            write_text(unfinished / f"{split}.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    return release


def _review_files(source: Path) -> dict[tuple[str, str], bytes]:
    """The content of each .review file by domain and label, in their order; nothing is unpacked to disk."""
    keys = [*product(AMAZON_DOMAINS, AMAZON_LABELS)]
    contents: dict[tuple[str, str], bytes] = {}
    faults = []
    with as_input_error(f"{source}: neither a folder nor a complete .tar.gz"):
        for path, size, read in _members(source):
            key = path.parent.name, path.name.removesuffix(".review")
            if path.suffix != ".review" or key not in keys:
                continue
            if path.is_absolute() or ".." in path.parts:
                faults.append(f"{shown(str(path))} leads out of the archive")
            elif key in contents:
                faults.append(f"{'/'.join(key)}.review is in it twice")
            elif size > REVIEW_FILE:
                faults.append(f"{'/'.join(key)}.review has {size:,} bytes; the limit is {REVIEW_FILE:,}")
            else:
                contents[key] = read()
    raise_faults(f"{source}: not the published release", faults)
    missing = [f"no {'/'.join(key)}.review" for key in keys if key not in contents]
    raise_faults(f"{source}: the release is incomplete", missing)
    return {key: contents[key] for key in keys}


def _members(source: Path) -> Iterator[tuple[PurePosixPath, int, Callable[[], bytes]]]:
    """Path, size and content of each regular file of a folder or archive; links in an archive are left out."""
    if source.is_dir():
        for path in sorted(path for path in source.rglob("*.review") if path.is_file()):
            yield PurePosixPath(path.relative_to(source).as_posix()), path.stat().st_size, path.read_bytes
        return
    if not source.is_file():
        raise InputError(f"{source}: no such file or folder")
    with source.open("rb") as file:
        compressed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    with open_bytes(source, compressed=compressed) as content, tarfile.open(fileobj=content, mode="r|") as archive:
        for member in archive:
            if member.isfile() and (content_of := archive.extractfile(member)) is not None:
                yield PurePosixPath(member.name), member.size, content_of.read


def _reviews(content: bytes) -> Iterator[str]:
    """The texts of one file, which looks like XML but is not, and has bytes that are not UTF-8."""
    for text in REVIEW_TEXT.findall(content.decode("utf-8", "replace")):
        yield " ".join(text.split())


def _multinli_tables(source: str) -> dict[str, Table]:
    """The release's tables under our split names."""
    folder = Path(source)
    if folder.is_dir():
        paths = folder.glob(f"{MULTINLI_PREFIX}*.jsonl")
        published = {path.stem.removeprefix(MULTINLI_PREFIX): open_file(path) for path in paths}
    elif HUB_ID.fullmatch(source):
        published = hub_tables(source, None)
    else:
        raise InputError(f"{source}: no such folder, and not a dataset id like nyu-mll/multi_nli")
    tables = {MULTINLI_SPLITS[name]: table for name, table in published.items() if name in MULTINLI_SPLITS}
    if missing := {"train", "dev"} - set(tables):
        absent = " and no ".join(sorted(missing))
        raise InputError(f"{source}: no {absent} of MultiNLI (files {MULTINLI_PREFIX}*.jsonl)")
    return tables
