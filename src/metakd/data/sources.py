"""A user's data -> a table for each split: from a file, a folder, a hub dataset or tables in memory."""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from metakd.data.readers import SUFFIXES, Rows, Values, read_rows, refuse_repeated
from metakd.data.schema import SPLITS
from metakd.utils.errors import InputError, as_input_error, error_summary, listed, raise_faults, require, shown

ALIASES = {"train": "train", "dev": "dev", "test": "test", "validation": "dev", "valid": "dev", "val": "dev"}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
HUB_SECONDS = 10  # to wait for the hub


@dataclass(frozen=True)
class Table:
    """Rows that can be read repeatedly; `rows(faults)` starts at the first and appends faults of single rows."""

    name: str
    rows: Callable[[list[str]], Rows]


@dataclass(frozen=True)
class Source:
    """A user's data: tables by split, or one table under '' that is yet to be split.

    `place` is the path or hub id to read it from again; None for tables in memory.
    """

    name: str
    tables: Mapping[str, Table]
    place: str | None = None


def open_source(data: Any, encoding: str = "utf-8", config: str | None = None) -> Source:
    """The tables of a file, a folder with train, dev and test, a hub dataset's id, a pandas DataFrame, a `datasets`
    object, or a dict of such tables by split. Raises InputError for anything else."""
    if isinstance(data, str | Path):
        path = Path(data)
        if path.is_dir():
            return Source(str(path), _folder(path, encoding), os.path.realpath(path))
        if is_hub_id(data):
            return Source(str(data), _splits(str(data), hub_tables(str(data), config)), str(data))
        return Source(str(path), {"": _file(path, encoding)}, os.path.realpath(path))
    if isinstance(data, Mapping):
        if type(data) is dict:  # not what `datasets` makes, which may have more splits
            stems = {str(name): str(name).partition(".")[0].lower() for name in data}
            nearly = [name for name, stem in stems.items() if stem.startswith((*ALIASES,)) and stem not in ALIASES]
            raise_faults("data", [f"{shown(name)}: no split; use one of {', '.join(ALIASES)}" for name in nearly])
        tables = {str(name): _object(str(name), table, encoding) for name, table in data.items()}
        return Source("data", _splits("data", tables))
    return Source("data", {"": _object("data", data, encoding)})


def is_hub_id(data: str | Path) -> bool:
    """Whether this names a dataset on the hub; any path that exists, or that ends like a data file, does not."""
    path = Path(data)
    return HUB_ID.fullmatch(str(data)) is not None and not path.exists() and not path.name.endswith(SUFFIXES)


def _file(path: Path, encoding: str) -> Table:
    if not path.is_file():
        raise InputError(f"{path}: {'not a regular file' if path.exists() else 'no such file or folder'}")
    if not path.name.lower().endswith(SUFFIXES):
        raise InputError(f"{path}: unsupported file type; expected one of {', '.join(SUFFIXES)}")
    return Table(path.name, partial(read_rows, path, encoding))


def _folder(path: Path, encoding: str) -> Mapping[str, Table]:
    """Files by the name of their split, or what `datasets` saved with `save_to_disk`."""
    if (path / "dataset_dict.json").is_file() or (path / "dataset_info.json").is_file():
        datasets = require("datasets", "train")
        with as_input_error(f"{path}: the saved dataset cannot be read"):
            saved = datasets.load_from_disk(str(path))
        return open_source(saved).tables
    files = {
        file.name: _file(file, encoding)
        for file in sorted(path.iterdir())
        if file.name.lower().endswith(SUFFIXES) and file.name.partition(".")[0].lower() in ALIASES
    }
    return _splits(str(path), files, listed(sorted(p.name for p in path.iterdir())) or "no files")


def _splits(name: str, tables: Mapping[str, Table], files: str | None = None) -> dict[str, Table]:
    """The tables by split; InputError if a split has two, or train has none."""
    keys: dict[str, list[str]] = {}
    for key in tables:
        if split := ALIASES.get(key.partition(".")[0].lower()):
            keys.setdefault(split, []).append(key)
    faults = [f"{split}: exists as {' and '.join(same)}; keep one" for split, same in keys.items() if same[1:]]
    if "train" not in keys:
        faults.append(f"no train ({', '.join(SUFFIXES)}); found {files or ', '.join(tables) or 'none'}")
    raise_faults(name, faults)
    return {split: tables[keys[split][0]] for split in SPLITS if split in keys}


def hub_tables(name: str, config: str | None) -> dict[str, Table]:
    """The splits of a hub dataset, or of its local cache if the hub cannot be reached."""
    datasets = require("datasets", "train")
    from huggingface_hub import HfApi

    failures = []
    try:
        HfApi().dataset_info(name, timeout=HUB_SECONDS)
    except Exception as error:  # the hub's client raises errors of many kinds
        failures.append(error)
    try:
        with _offline() if failures else contextlib.nullcontext():
            splits = datasets.load_dataset(name, config)
    except Exception as error:
        reason = error_summary((failures or [error])[0])
        raise InputError(
            f"{name}: no such file or folder, and cannot be loaded from the hub ({reason}). Check the path; choose a "
            "configuration with --data-config if there are several; or download it where the hub can be reached"
        ) from None
    return {split: _object(split, table, "utf-8") for split, table in splits.items()}


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Keep `datasets` from waiting half a minute for a hub that does not respond."""
    switches: list[Any] = [require(module, "train") for module in ("huggingface_hub.constants", "datasets.config")]
    before = [switch.HF_HUB_OFFLINE for switch in switches]
    try:
        for switch in switches:
            switch.HF_HUB_OFFLINE = True
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.HF_HUB_OFFLINE = value


def _object(name: str, table: Any, encoding: str) -> Table:
    """A file's path, a pandas DataFrame or a `datasets.Dataset`."""
    if isinstance(table, str | Path):
        return _file(Path(table), encoding)
    pandas, datasets = (sys.modules.get(module) for module in ("pandas", "datasets"))
    if pandas and isinstance(table, pandas.DataFrame):
        columns = [str(column) for column in table.columns]
        refuse_repeated(name, columns)
        return table_of(name, lambda: _records(table.set_axis(columns, axis=1)))
    if datasets and isinstance(table, datasets.Dataset):
        refuse_repeated(name, table.column_names)
        return table_of(name, lambda: _named_classes(table.with_format(None)))
    raise InputError(f"{name}: expected a path, a pandas DataFrame or a datasets.Dataset, found {type(table).__name__}")


def table_of(name: str, records: Callable[[], Iterable[Values]]) -> Table:
    """A table of records in memory; each call of `records` starts at the first."""
    return Table(name, lambda _: iter(enumerate(records(), start=1)))


def _records(frame: Any) -> Iterable[Values]:
    """Rows of a DataFrame; missing values (NaN, NaT, NA) become None."""
    return frame.astype(object).where(frame.notna().to_numpy(), None).to_dict("records")


def _named_classes(table: Any) -> Iterable[Values]:
    """Rows of a Dataset with class names instead of numbers; -1, which means no label, becomes None."""
    classes = {name: feature for name, feature in table.features.items() if hasattr(feature, "int2str")}
    lists = {name: f.feature for name, f in table.features.items() if hasattr(getattr(f, "feature", None), "int2str")}
    for values in table:
        named = {n: None if values[n] is None or values[n] < 0 else c.int2str(values[n]) for n, c in classes.items()}
        for name, feature in lists.items():
            numbers = values[name]
            unknown = numbers is None or any(number is None or number < 0 for number in numbers)
            named[name] = None if unknown else [feature.int2str(number) for number in numbers]
        yield values | named
