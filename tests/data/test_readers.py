"""Every format gives the same rows; every broken file says where it is broken and how to mend it."""

import errno
import gzip
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import write_rows
from metakd.data import readers
from metakd.data.examples import stream
from metakd.data.readers import read_rows
from metakd.data.sources import Table
from metakd.utils.errors import InputError

ROWS: list[dict[str, Any]] = [
    {"text": "Très bon, même à froid", "label": "gut", "domain": "Küche"},
    {"text": 'says "no", twice;\nand a line', "label": "schlecht", "domain": "Bücher"},
]


def rows_of(path: Path, encoding: str = "utf-8") -> tuple[list[tuple[int, dict[str, Any]]], list[str]]:
    faults: list[str] = []
    return list(read_rows(path, encoding, faults)), faults


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", ["jsonl", "csv", "semicolons", "tsv", "parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, form: str, packed: bool) -> None:
    rows = [row | {"text": row["text"].replace("\n", " ")} for row in ROWS] if form == "tsv" else ROWS
    frame, file = pd.DataFrame(rows), tmp_path / f"rows.{'csv' if form == 'semicolons' else form}"
    if form == "jsonl":
        write_rows(file, rows)
    elif form == "parquet":
        frame.to_parquet(file)
    else:
        frame.to_csv(file, index=False, sep={"csv": ",", "semicolons": ";", "tsv": "\t"}[form])
    if packed:
        file = file.rename(file.with_name(f"raw-{file.name}"))
        packed_file = tmp_path / f"{file.name}.gz"
        packed_file.write_bytes(gzip.compress(file.read_bytes()))
        file = packed_file
    found, faults = rows_of(file)
    assert [values for _, values in found] == rows
    assert faults == []
    assert found[0][0] == (2 if form in ("csv", "semicolons", "tsv") else 1)  # a header is row 1


@pytest.mark.parametrize(("encoding", "named"), [("utf-8-sig", "utf-8"), ("cp1252", "cp1252"), ("utf-16", "utf-16")])
def test_a_spreadsheets_encodings(tmp_path: Path, encoding: str, named: str) -> None:
    file = tmp_path / "export.csv"
    file.write_bytes("text;label\r\nÄpfel überall;gut\r\n".encode(encoding))
    found, faults = rows_of(file, named)
    assert found == [(2, {"text": "Äpfel überall", "label": "gut"})]
    assert faults == []


def test_a_byte_that_is_no_utf_8_has_its_line_and_place(tmp_path: Path) -> None:
    """'ü' in cp1252 is 0xFC; it is the sixth byte of line 2, after 'Das f' ('für')."""
    file = tmp_path / "export.csv"
    file.write_bytes(b"text,label\nDas f\xfcr,gut\nok,gut\n")
    found, faults = rows_of(file)
    assert faults == [
        "export.csv, line 2, byte 6: 0xFC is no utf-8; save the file as UTF-8, or name its encoding (--encoding cp1252)"
    ]
    assert len(found) == 2  # reading goes on, so that all faults are told


def test_many_bad_bytes_are_one_fault_and_a_mark_tells_the_encoding(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(b"text,label\n" + b"f\xfcr,b\n" * 30)
    (fault,) = rows_of(file)[1]
    assert "line 2, byte 2: 0xFC is no utf-8, and so on 29 lines more; save" in fault
    file.write_bytes("text\nä\n".encode("utf-8-sig"))
    with pytest.raises(InputError, match="begins with the mark of UTF-8"):
        rows_of(file, "latin-1")


@pytest.mark.parametrize(("start", "byte"), [(b"\xef\xbb\xbf", 10), (b"", 7)])
def test_a_mark_at_the_start_counts_as_bytes(tmp_path: Path, start: bytes, byte: int) -> None:
    """'teüx,' is six bytes, and a byte-order mark three."""
    file = tmp_path / "rows.csv"
    file.write_bytes(start + "teüx,".encode() + b"\xfc\n")
    _, faults = rows_of(file)
    assert f"line 1, byte {byte}: 0xFC" in faults[0]


def test_a_byte_of_another_encoding_is_counted_in_that_encoding(tmp_path: Path) -> None:
    """0x81 is nothing in cp1252; three one-byte letters go before it."""
    file = tmp_path / "rows.csv"
    file.write_bytes("text\nüüü".encode("cp1252") + b"\x81\n")
    _, faults = rows_of(file, "cp1252")
    assert "line 2, byte 4: 0x81 is no cp1252" in faults[0]


@pytest.mark.parametrize(
    "content",
    [
        "sep=;\ntext;label\na, b, c;d\n",
        "Wie zufrieden sind Sie, alles in allem, mit uns?;Note\na;b\nc;d\n",
        "text|label\na, b;c|d\n",
    ],
)
def test_the_delimiter_is_that_which_fits_the_rows(tmp_path: Path, content: str) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(content)
    found, faults = rows_of(file)
    assert faults == []
    assert {len(values) for _, values in found} == {2}


def test_fields_that_a_spreadsheet_left_out_at_the_end_are_empty(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,label,id\na,b\n")
    assert rows_of(file) == ([(2, {"text": "a", "label": "b", "id": ""})], [])


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("text,label\na,b,c\n", "row 2: 3 fields, and the header names 2; put fields that hold ','"),
        ("\n\ntext,label\na,b,c\n", "row 4: 3 fields"),
        ('text,label\n"a,b\n', "row 2: unexpected end of data; check the double quotes"),
        ('text,label\n"a"b,c\n', "row 2: ',' expected after '\"'"),
    ],
)
def test_a_ragged_csv_names_the_row(tmp_path: Path, content: str, fault: str) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(content)
    _, faults = rows_of(file)
    assert len(faults) == 1
    assert fault in faults[0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", b"text,text\na,b\n", "the header names text more than once"),
        ("rows.parquet", b"PAR1 is not enough", "not a whole Parquet file"),
        ("rows.parquet", b"", "not a whole Parquet file"),
        ("rows.jsonl.gz", b"not gzip", "cannot be read to its end"),
        ("rows.txt", b"x", "expected one of .jsonl"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        rows_of(tmp_path / name)


def test_what_the_machine_lacks_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = write_rows(tmp_path / "rows.jsonl", [{"text": "a"}])
    monkeypatch.setattr(readers, "open_bytes", no_room)
    with pytest.raises(OSError, match="No space left"):
        rows_of(file)


def test_a_parquet_file_unpacks_in_proportion(tmp_path: Path) -> None:
    """100 million times one letter in a few kilobytes, where 64 MiB are allowed; one text that is many rows'."""
    bomb, many = tmp_path / "bomb.parquet", tmp_path / "many.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a" * 10**8]}), bomb, compression="zstd")
    with pytest.raises(InputError, match="unpacks to more than 67,108,864 bytes"):
        rows_of(bomb)
    pyarrow.parquet.write_table(pyarrow.table({"text": ["b" * 10**5] * 1000}), many, compression="zstd")
    tracemalloc.start()
    for _, values in readers.read_rows(many, "utf-8", []):
        assert len(values["text"]) == 10**5
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


def test_a_stream_keeps_nothing_of_its_rows() -> None:
    """A text and its label are over 100 bytes, so 18,000 rows more, were they kept, would be megabytes."""

    def peak(count: int) -> int:
        table = Table("many", lambda _: ((i, {"text": f"text {i}"}) for i in range(1, count + 1)))
        tracemalloc.start()
        assert sum(1 for _ in stream(table, [])) == count
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(20_000) < peak(2_000) + 18_000


def test_an_encoding_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Python knows no such encoding"):
        rows_of(write_rows(tmp_path / "rows.jsonl", ROWS), "utf-99")


def test_blank_lines_and_a_blank_end_are_nothing(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,label\n\na,b\n , \n\n")
    assert rows_of(file) == ([(3, {"text": "a", "label": "b"})], [])


@given(st.binary(max_size=300))
def test_no_bytes_break_a_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Rows, faults or an InputError, whatever stands in the file."""
    folder = tmp_path_factory.mktemp("fuzz")
    for name in ("a.jsonl", "a.csv", "a.tsv", "a.parquet", "a.csv.gz"):
        (folder / name).write_bytes(content)
        try:
            rows_of(folder / name)
        except InputError:
            continue
