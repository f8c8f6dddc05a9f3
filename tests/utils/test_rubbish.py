"""Random input from hypothesis: a sound result, or one message; never a traceback, never another result."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import as_row, write_rows
from metakd.config.settings import Settings
from metakd.config.settings_file import read_settings_file
from metakd.data.dataset import load_dataset
from metakd.data.examples import read_examples
from metakd.data.schema import FIELDS, Example, folder_name
from metakd.inspection.inspector import inspect_data
from metakd.utils.errors import InputError, collecting, listed, printable, shown
from metakd.utils.validation import damage

settings.register_profile("bounded", max_examples=60, deadline=None)
settings.load_profile("bounded")

LONGEST_MESSAGE = 20_000
ANY_TEXT = st.text(st.characters(), max_size=12)  # surrogates and controls too
NUMBERS = st.integers() | st.floats()
SCALARS = st.none() | st.booleans() | NUMBERS | NUMBERS.map(str) | ANY_TEXT
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3))
ROW = st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, VALUES))
SOUND_ROW = st.fixed_dictionaries(
    {"text": ANY_TEXT, "label": st.sampled_from("ab"), "domain": st.sampled_from("xy") | ANY_TEXT}
)
ENCODINGS = st.sampled_from(["hex", "idna", "utf-7", "utf-16", "unicode_escape", "rot13"])
SNIPPETS = [*"[]{}'\"|>\n", "seed", "alpha", "columns", ": ", "- ", "&a ", "*a", "? ", "<<: ", "%YAML 9", "---", "..."]
SNIPPETS += ["!!int ", "!!binary ", "0b_", "0x1", ".inf", "2001-13-01", "\\ud800", "true", "1e9"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rubbish")


def result_or_none(make: Callable[[], Any]) -> Any:
    """What is made; None where one short message says why it cannot be."""
    problems: list[InputError] = []
    with collecting(problems):
        return make()
    assert len(printable(str(*problems)).encode()) <= LONGEST_MESSAGE
    return None


def read(path: Path, **options: Any) -> list[Example] | None:
    """The examples of a file, each of which is sound; None where a message says why there are none."""
    examples = result_or_none(lambda: read_examples(path, **options))
    for one in examples or []:
        assert one.text.strip()
        assert one.label.strip() == one.label != ""
        assert folder_name(one.domain).isascii()
        json.dumps([one.text, one.label, one.domain, one.id], ensure_ascii=False).encode()
    return examples


def same_from_json(examples: list[Example], folder: Path) -> bool:
    return read_examples(write_rows(folder / "again.jsonl", [as_row(e) for e in examples])) == examples


@given(st.lists(ROW | SOUND_ROW | VALUES, min_size=1, max_size=4), st.booleans())
def test_lines_of_json(folder: Path, rows: list[Any], ascii_only: bool) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)
    (folder / "rows.jsonl").write_bytes(lines.encode("utf-8", "surrogatepass"))
    examples = read(folder / "rows.jsonl")
    assert examples is None or (len(examples) == len(rows) and same_from_json(examples, folder))


@given(st.text("abxy,;\t|\"'\n\r\0 é\ufeff=sep", max_size=80), st.sampled_from(["csv", "tsv"]))
def test_tables_of_text(folder: Path, body: str, form: str) -> None:
    tab = "\t" if form == "tsv" else ","
    (folder / f"rows.{form}").write_bytes((tab.join(["text", "label", "domain"]) + "\n" + body).encode())
    examples = read(folder / f"rows.{form}")
    assert examples is None or same_from_json(examples, folder)


@given(st.dictionaries(st.sampled_from(FIELDS) | ANY_TEXT, st.lists(VALUES | st.binary(), min_size=1), max_size=4))
def test_parquet_of_any_type(folder: Path, columns: dict[str, list[Any]]) -> None:
    try:
        pd.DataFrame({name: pd.Series(column) for name, column in columns.items()}).to_parquet(folder / "rows.parquet")
    except Exception:  # what Parquet cannot hold
        return
    read(folder / "rows.parquet")


@given(st.binary(max_size=300), ANY_TEXT | ENCODINGS)
def test_encodings(folder: Path, body: bytes, encoding: str) -> None:
    for name, content in (("rows.csv", b"text,label,domain\n" + body), ("rows.jsonl", body), ("rows.csv.gz", body)):
        (folder / name).write_bytes(content)
        read(folder / name, encoding=encoding)


@given(st.lists(SOUND_ROW, min_size=1, max_size=30))
def test_run_takes_what_inspect_finds_no_fault_with(folder: Path, rows: list[dict[str, str]]) -> None:
    for split in ("train", "dev"):
        write_rows(folder / "data" / f"{split}.jsonl", rows)
    loaded = result_or_none(lambda: load_dataset(folder / "data"))
    assert (loaded is None) == bool(inspect_data(folder / "data")["faults"])


@given(st.dictionaries(st.sampled_from([*Settings.model_fields]) | ANY_TEXT, VALUES, max_size=4))
def test_settings_of_any_value(values: dict[str, Any]) -> None:
    built = result_or_none(lambda: Settings.build(values))
    if built is not None:
        assert Settings.build(built.model_dump(mode="json")) == built
        json.dumps(built.model_dump(mode="json"), allow_nan=False, ensure_ascii=False).encode()


@given(st.lists(st.sampled_from(SNIPPETS) | ANY_TEXT, max_size=14).map("".join))
def test_files_of_settings(folder: Path, text: str) -> None:
    path = folder / "settings.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    values = result_or_none(lambda: read_settings_file(path))
    if values is not None:
        assert values == (yaml.safe_load(path.read_text(encoding="utf-8")) or {})


@given(VALUES, st.lists(ANY_TEXT))
def test_values_in_messages_are_short_and_on_one_row(value: Any, names: list[str]) -> None:
    for text in (shown(value), listed(names)):
        assert len(text) < 1000
        assert text.isprintable()


def test_messages_control_no_terminal_and_sound_text_is_not_damaged() -> None:
    assert printable("a\x1b[2Jb\n\ud800\tc") == "a\\x1b[2Jb\n\\ud800\tc"
    assert shown(0x10**9000) == "a huge int"
    assert damage("sound, with é and 😀 and \u200d") is None
