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

from conftest import write_rows
from metakd.data import readers
from metakd.data.examples import read_table
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


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("form", ["jsonl", "csv", "semicolons", "tsv", "parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, form: str, compressed: bool) -> None:
    rows = [row | {"text": row["text"].replace("\n", " ")} for row in ROWS] if form == "tsv" else ROWS
    frame, file = pd.DataFrame(rows), tmp_path / f"rows.{'csv' if form == 'semicolons' else form}"
    if form == "jsonl":
        write_rows(file, rows)
    elif form == "parquet":
        frame.to_parquet(file)
    else:
        frame.to_csv(file, index=False, sep={"csv": ",", "semicolons": ";", "tsv": "\t"}[form])
    if compressed:
        content, file = file.read_bytes(), tmp_path / f"compressed-{file.name}.gz"
        file.write_bytes(gzip.compress(content))
    values, faults = rows_of(file)
    assert ([row for _, row in values], faults) == (rows, [])
    assert values[0][0] == (2 if form in ("csv", "semicolons", "tsv") else 1)  # a header is row 1


@pytest.mark.parametrize(("encoding", "named"), [("utf-8-sig", "utf-8"), ("cp1252", "cp1252"), ("utf-16", "utf-16")])
def test_a_spreadsheets_encodings(tmp_path: Path, encoding: str, named: str) -> None:
    file = tmp_path / "export.csv"
    file.write_bytes("text;label\r\nÄpfel überall;gut\r\n".encode(encoding))
    assert rows_of(file, named) == ([(2, {"text": "Äpfel überall", "label": "gut"})], [])


@pytest.mark.parametrize(
    ("content", "encoding", "fault"),
    [
        (b"text,label\nDas f\xfcr,gut\nok,gut\n", "utf-8", "line 2, byte 6: 0xFC is not utf-8; save the file as UTF-8"),
        ("teüx,".encode() + b"\xfc\n", "utf-8", "line 1, byte 7: 0xFC"),
        ("teüx,".encode("utf-8-sig") + b"\xfc\n", "utf-8", "line 1, byte 10: 0xFC"),
        ("text\nüüü".encode("cp1252") + b"\x81\n", "cp1252", "line 2, byte 4: 0x81 is not cp1252"),
    ],
)
def test_a_byte_that_cannot_be_decoded_is_located(tmp_path: Path, content: bytes, encoding: str, fault: str) -> None:
    """'Das f' is five bytes, 'teüx,' six, a byte-order mark three, and 'ü' one in cp1252."""
    file = tmp_path / "rows.csv"
    file.write_bytes(content)
    (message,) = rows_of(file, encoding)[1]
    assert message.startswith(f"rows.csv, {fault}")


def test_many_bad_bytes_are_one_fault_and_a_bom_excludes_other_encodings(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(b"text,label\n" + b"f\xfcr,b\n" * 30)
    (fault,) = rows_of(file)[1]
    assert "line 2, byte 2: 0xFC is not utf-8, and 29 more; save" in fault
    file.write_bytes("text\nä\n".encode("utf-8-sig"))
    with pytest.raises(InputError, match="starts with the byte-order mark of UTF-8"):
        rows_of(file, "latin-1")


def test_the_delimiter_is_that_which_fits_the_rows(tmp_path: Path) -> None:
    file, header = tmp_path / "rows.csv", "Wie zufrieden sind Sie, alles in allem, mit uns?;Note"
    for content in ("sep=;\ntext;label\na, b, c;d\n", f"{header}\na;b\nc;d\n", "text|label\na, b;c|d\n"):
        file.write_text(content)
        values, faults = rows_of(file)
        assert faults == []
        assert {len(row) for _, row in values} == {2}


def test_a_byte_order_mark_between_two_files_is_none_of_the_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes('{"text": "a"}\n'.encode("utf-8-sig") * 2)
    assert rows_of(file) == ([(1, {"text": "a"}), (2, {"text": "a"})], [])


def test_an_exhausted_resource_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = write_rows(tmp_path / "rows.jsonl", [{"text": "a"}])
    monkeypatch.setattr(readers, "open_bytes", no_room)
    with pytest.raises(OSError, match="No space left"):
        rows_of(file)


def test_a_parquet_file_expands_in_proportion(tmp_path: Path) -> None:
    """100 million times one letter in a few kilobytes, where 64 MiB are allowed; one text that is many rows'."""
    bomb, many = tmp_path / "bomb.parquet", tmp_path / "many.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a" * 10**8]}), bomb, compression="zstd")
    with pytest.raises(InputError, match="expands to more than 67,108,864 bytes"):
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
        assert sum(1 for _ in read_table(table, [], needed=("text",))) == count
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return memory

    assert peak(20_000) < peak(2_000) + 18_000


def test_blank_lines_are_nothing_and_fields_left_out_at_the_end_are_empty(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,label,id\n\na,b\n , \n\n")
    assert rows_of(file) == ([(3, {"text": "a", "label": "b", "id": ""})], [])
