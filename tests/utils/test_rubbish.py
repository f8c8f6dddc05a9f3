"""Whatever hypothesis comes up with: a sound result, or one message; never a traceback, never another result."""

import io
import json
import math
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metakd.config.settings import Settings
from metakd.config.yaml_file import read_settings_file
from metakd.data.dataset import folder_name, load_dataset
from metakd.data.examples import read_examples
from metakd.data.releases import AMAZON_DOMAINS, AMAZON_LABELS, prepare
from metakd.data.schema import FIELDS, Example
from metakd.inspection.inspector import inspect_data
from metakd.utils.errors import InputError, listed, printable, shown

settings.register_profile("bounded", max_examples=60, deadline=None)
settings.load_profile("bounded")

LONGEST_MESSAGE = 20_000
ANY_TEXT = st.text(st.characters(), max_size=12)  # surrogates and controls too
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3))
ROW = st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, VALUES))
SOUND_ROW = st.fixed_dictionaries(
    {"text": ANY_TEXT, "label": st.sampled_from("ab"), "domain": st.sampled_from("xy") | ANY_TEXT}
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rubbish")


def read_or_told(path: Path, **how: Any) -> list[Example] | None:
    """The examples of a file, each of which is sound; None where one message told why there are none."""
    try:
        examples = read_examples(path, **how)
    except InputError as error:
        told = str(error)
    else:
        return sound(examples)
    assert len(printable(told).encode()) <= LONGEST_MESSAGE
    return None


def sound(examples: list[Example]) -> list[Example]:
    for one in examples:
        assert one.text.strip()
        assert one.label.strip() == one.label != ""
        assert folder_name(one.domain).isascii()
        json.dumps([one.text, one.label, one.domain, one.id], ensure_ascii=False).encode()
    return examples


def same_from_json(examples: list[Example], folder: Path) -> bool:
    rows = [{f: getattr(e, f) for f in FIELDS if getattr(e, f) is not None} for e in examples]
    (folder / "again.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_examples(folder / "again.jsonl") == examples


@given(st.lists(ROW | SOUND_ROW | VALUES, min_size=1, max_size=4), st.booleans())
def test_lines_of_json(folder: Path, rows: list[Any], ascii_only: bool) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)
    (folder / "rows.jsonl").write_bytes(lines.encode("utf-8", "surrogatepass"))
    examples = read_or_told(folder / "rows.jsonl")
    assert examples is None or (len(examples) == len(rows) and same_from_json(examples, folder))


@given(st.text("abxy,;\t|\"'\n\r\0 é\ufeff=sep", max_size=80), st.sampled_from(["csv", "tsv"]))
def test_tables_of_text(folder: Path, body: str, form: str) -> None:
    tab = "\t" if form == "tsv" else ","
    (folder / f"rows.{form}").write_bytes((tab.join(["text", "label", "domain"]) + "\n" + body).encode())
    examples = read_or_told(folder / f"rows.{form}")
    assert examples is None or same_from_json(examples, folder)


@given(
    st.dictionaries(
        st.sampled_from(FIELDS) | ANY_TEXT, st.lists(VALUES | st.binary(max_size=4), min_size=1), max_size=4
    )
)
def test_parquet_of_any_type(folder: Path, columns: dict[str, list[Any]]) -> None:
    try:
        pd.DataFrame({name: pd.Series(column) for name, column in columns.items()}).to_parquet(folder / "rows.parquet")
    except Exception:  # what Parquet cannot hold
        return
    read_or_told(folder / "rows.parquet")


@given(
    st.binary(max_size=60), ANY_TEXT | st.sampled_from(["hex", "idna", "utf-7", "utf-16", "unicode_escape", "rot13"])
)
def test_encodings(folder: Path, body: bytes, encoding: str) -> None:
    (folder / "rows.csv").write_bytes(b"text,label,domain\n" + body)
    read_or_told(folder / "rows.csv", encoding=encoding)


@given(st.lists(SOUND_ROW, min_size=1, max_size=30))
def test_run_takes_what_inspect_finds_no_fault_with(folder: Path, rows: list[dict[str, str]]) -> None:
    for split in ("train", "dev"):
        (folder / "data").mkdir(exist_ok=True)
        (folder / "data" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    faults = inspect_data(folder / "data")["faults"]
    try:
        load_dataset(folder / "data")
    except InputError:
        assert faults
    else:
        assert not faults


def built_or_told(make: Callable[[], Any]) -> tuple[Any, str]:
    """What was made, or the message that there is instead."""
    try:
        return make(), ""
    except InputError as error:
        return None, str(error)


NAMES = st.sampled_from([*Settings.model_fields])


@given(st.dictionaries(NAMES, VALUES, max_size=4) | st.dictionaries(ANY_TEXT, VALUES, max_size=2))
def test_settings_of_any_value(values: dict[str, Any]) -> None:
    built, told = built_or_told(lambda: Settings.build(values))
    assert len(told) <= LONGEST_MESSAGE
    if built is not None:
        assert Settings.build(built.model_dump(mode="json")) == built
        json.dumps(built.model_dump(mode="json"), allow_nan=False, ensure_ascii=False).encode()


@pytest.mark.parametrize("name", Settings.model_fields)
@settings(max_examples=15)
@given(
    value=st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.integers().map(str) | st.floats().map(str)
)
def test_every_flag_takes_or_refuses_any_word(name: str, value: str) -> None:
    """A flag's value is text; numbers that are taken are finite."""
    try:
        built = getattr(Settings.build({name: value}), name)
    except InputError:
        return
    assert not isinstance(built, float) or math.isfinite(built)


SNIPPETS = [
    "seed",
    "alpha",
    "columns",
    ": ",
    "\n",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "&a ",
    "*a",
    "!!int ",
    "!!binary ",
    "'",
    '"',
]
SNIPPETS += [
    "0b_",
    "0x1",
    ".inf",
    "2001-13-01",
    "? ",
    "<<: ",
    "|",
    ">",
    "%YAML 9",
    "---",
    "...",
    "\\ud800",
    "true",
    "1e9",
]


@given(st.lists(st.sampled_from(SNIPPETS) | ANY_TEXT, max_size=14).map("".join))
def test_files_of_settings(folder: Path, text: str) -> None:
    path = folder / "settings.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    values, told = built_or_told(lambda: read_settings_file(path))
    assert len(told) <= LONGEST_MESSAGE
    if values is not None:
        assert values == (yaml.safe_load(path.read_text(encoding="utf-8")) or {})


@example(review=b"", flips=[], cut=True)  # whole headers, and no end
@settings(max_examples=25)
@given(
    review=st.binary(max_size=200),
    flips=st.lists(st.tuples(st.integers(0, 511), st.integers(0, 255)), max_size=4),
    cut=st.booleans(),
)
def test_archives(folder: Path, review: bytes, flips: list[tuple[int, int]], cut: bool) -> None:
    """An archive whose first header has other bytes; what comes of it is refused, or is data that can be loaded."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for domain in AMAZON_DOMAINS:
            for label in AMAZON_LABELS:
                body = b"".join(b"<review_text>no. %d</review_text>" % i for i in range(11))
                body += b"<review_text>" + review + b"</review_text>"
                info = tarfile.TarInfo(f"{domain}/{label}.review")
                info.size = len(body)
                archive.addfile(info, io.BytesIO(body))
    content = bytearray(packed.getvalue())
    for place, value in flips:
        content[place] = value
    (folder / "release.tar.gz").write_bytes(content[: 700 if cut else None])
    out = folder / f"out-{len([*folder.iterdir()])}"
    try:
        prepare("amazon", str(folder / "release.tar.gz"), out)
    except InputError:
        assert not out.exists()
    else:
        assert load_dataset(out).labels == ["negative", "positive"]


@given(VALUES, st.lists(ANY_TEXT))
def test_what_is_shown_is_short_and_one_line(value: Any, names: list[str]) -> None:
    for told in (shown(value), listed(names)):
        assert len(told) < 1000
        assert told.isprintable()


def test_a_message_obeys_nobody() -> None:
    assert printable("a\x1b[2Jb\n\ud800\tc") == "a\\x1b[2Jb\n\\ud800\tc"
    assert shown(0x10**9000) == "a huge int"
