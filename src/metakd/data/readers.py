"""One file -> its rows, read as a stream: JSONL, CSV, TSV and Parquet, each also compressed by gzip, with a limit on
how far it may expand."""

import codecs
import contextlib
import csv
import gzip
import io
import json
import re
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import IO, Any, cast

from metakd.utils.errors import InputError, as_input_error, listed, require

Values = dict[str, Any]
Rows = Iterator[tuple[int, Values]]

FORMATS = (".jsonl", ".csv", ".tsv", ".parquet")
SUFFIXES = tuple(f"{name}{gz}" for name in FORMATS for gz in ("", ".gz"))
DELIMITERS = ",;\t|"  # spreadsheets write the semicolon where commas are decimal points
SNIFFED_LINES = 20
NAMED_DELIMITER = re.compile(r"sep=(.)\s*")
MARKS = {  # byte-order marks, UTF-32's before UTF-16's, with which one of them begins
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")  # what begins without a mark may be
LONGEST_ROW = 8_000_000  # characters; a novel has one million
PARQUET_ROWS = 1024  # read at a time; each may be long
MOST_EXPANDED = 100  # times the compressed size; text shrinks to a tenth, a decompression bomb to a thousandth
ALWAYS_EXPANDED = 64 * 2**20  # bytes that a compressed file of any size may expand to


def read_rows(path: Path, encoding: str, faults: list[str]) -> Rows:
    """Each row's number, as an editor or a spreadsheet counts it, and its values by column.

    Faults of single rows are appended to `faults`, and reading continues; InputError if it cannot.
    """
    compressed = path.suffix.lower() == ".gz"
    name = path.name.lower().removesuffix(".gz")
    torn = as_input_error(f"{path}: cannot be read completely", (OSError, EOFError, zlib.error))
    with torn, open_bytes(path, compressed=compressed) as file:
        if name.endswith(".parquet"):
            yield from _parquet(path, file, compressed)
        elif name.endswith(".jsonl"):
            yield from _jsonl(path.name, _decoded(path, file, encoding, faults), faults)
        else:
            delimiter = "\t" if name.endswith(".tsv") else None
            yield from _csv(path.name, _decoded(path, file, encoding, faults), delimiter, faults)


def _decoded(path: Path, file: io.BufferedReader, encoding: str, faults: list[str]) -> Iterator[str]:
    """Lines of text; a byte that `encoding` cannot decode is a fault, with its line and position."""
    remedy = "save the file as UTF-8, or name its encoding (for example --encoding cp1252)"
    codec, head = _codec(encoding), file.peek()
    _refuse_other_encoding(path, head, codec, encoding)
    has_bom = head.startswith(codecs.BOM_UTF8)
    first, count = "", 0
    try:
        stream = io.TextIOWrapper(file, "utf-8-sig" if has_bom else codec, "surrogateescape", newline="")
        for number, text in enumerate(iter(partial(stream.readline, LONGEST_ROW + 1), ""), start=1):
            if len(text) > LONGEST_ROW:
                raise InputError(
                    f"{path}, line {number}: longer than {LONGEST_ROW:,} characters; put each row on its own line, "
                    "and shorten longer texts"
                )
            if not text.isascii() and (place := _undecoded(text)) is not None:
                byte = len(text[:place].encode(codec, "surrogateescape")) + 1
                byte += len(codecs.BOM_UTF8) if has_bom and number == 1 else 0
                first = first or f"line {number}, byte {byte}: 0x{ord(text[place]) - 0xDC00:02X} is not {encoding}"
                count += 1
                text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            yield text
    except UnicodeError as error:
        raise InputError(f"{path}: not {encoding} ({error}); {remedy}") from None
    finally:
        if first:
            more = f", and {count - 1} more" if count > 1 else ""
            faults.append(f"{path.name}, {first}{more}; {remedy}")


def _refuse_other_encoding(path: Path, head: bytes, codec: str, encoding: str) -> None:
    """InputError if the file's first bytes show that it has another encoding, which the message names."""
    if name := next((name for bom, name in MARKS.items() if head.startswith(bom)), None):
        if codec not in (name, f"{name}-sig"):
            remedy = "leave out --encoding" if name == "utf-8" else f"add --encoding {name}"
            raise InputError(f"{path}: starts with the byte-order mark of {name.upper()}, not {encoding}; {remedy}")
    elif (name := _wide_encoding(head)) and codec not in (name, name.removesuffix("-le")):
        raise InputError(f"{path}: is {name.upper()} without a byte-order mark, not {encoding}; add --encoding {name}")


def _wide_encoding(head: bytes) -> str | None:
    """The encoding of WIDE, if any, in which the first bytes of a file have a line break or begin a JSON object."""
    for name in WIDE:
        with contextlib.suppress(UnicodeDecodeError):
            text = codecs.getincrementaldecoder(name)().decode(head)
            if "\n" in text or text.startswith("{"):
                return name
    return None


def _codec(encoding: str) -> str:
    """Python's name of a text encoding."""
    try:
        "".encode(encoding)  # LookupError also for codecs that are not for text, such as hex
        return codecs.lookup(encoding).name
    except (LookupError, ValueError):
        raise InputError(f"--encoding = {encoding!r}: no such encoding in Python; try utf-8 or cp1252") from None


def _undecoded(text: str) -> int | None:
    """The position of the first byte that could not be decoded."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start
    return None


def _jsonl(name: str, lines: Iterator[str], faults: list[str]) -> Rows:
    for row, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            values = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_unique_keys)  # of a file appended here
        except (ValueError, RecursionError) as error:
            faults.append(f"{name}, row {row}: not valid JSON ({error})")
            continue
        if isinstance(values, dict):
            yield row, values
        else:
            faults.append(f"{name}, row {row}: expected an object, found {type(values).__name__}")


def _unique_keys(pairs: list[tuple[str, Any]]) -> Values:
    counts = Counter(key.strip() for key, _ in pairs)
    if len(counts) < len(pairs):
        repeated = [key for key, count in counts.items() if count > 1]
        raise ValueError(f"repeated keys: {listed(repeated)}")
    return dict(pairs)


def refuse_repeated(name: str, columns: Sequence[str]) -> None:
    """InputError if a table has several columns of one name, of which a row would keep the last one's value alone."""
    counts = Counter(column.strip() for column in columns)
    if repeated := sorted(column for column, count in counts.items() if column and count > 1):
        raise InputError(f"{name}: the header has {listed(repeated)} more than once; rename all but one")


def _csv(name: str, lines: Iterator[str], delimiter: str | None, faults: list[str]) -> Rows:
    """Rows below the header, which is row 1. Without `delimiter`, the one that fits the first lines best is used."""
    csv.field_size_limit(LONGEST_ROW)
    head = list(islice(lines, SNIFFED_LINES))
    if head and (named := NAMED_DELIMITER.fullmatch(head[0])):  # spreadsheets read it and do not show it
        delimiter, head = named.group(1), head[1:]
    blank = next((i for i, text in enumerate(head) if text.strip()), len(head))
    head = head[blank:]
    delimiter = delimiter or _sniff(head)
    records = csv.reader(chain(head, lines), delimiter=delimiter, strict=True)
    row = blank
    try:
        header = [column.strip() for column in next(records, [])]
        row += 1
        refuse_repeated(name, header)
        for row, record in enumerate(records, start=blank + 2):
            if not any(field.strip() for field in record):
                continue  # a blank line, or the empty rows that spreadsheets add
            if len(record) > len(header):
                faults.append(
                    f"{name}, row {row}: {len(record)} fields, but the header has {len(header)}; "
                    f"put fields with {delimiter!r} or line breaks into double quotes"
                )
            elif delimiter == "\t" and any("\t" in field or "\n" in field for field in record):
                faults.append(f"{name}, row {row}: a double quote encloses a tab or a line break; remove the quote")
            else:  # spreadsheets leave out empty fields at the end
                yield row, dict(zip_longest(header, record, fillvalue=""))
    except csv.Error as error:
        faults.append(f"{name}, from row {row + 1} on: {error}; check its double quotes (these rows were not read)")


def _sniff(head: list[str]) -> str:
    """The delimiter by which most of the first records have as many fields as the header, and the header the most."""

    def fit(delimiter: str) -> tuple[int, int]:
        sizes = [len(record) for record in csv.reader(head, delimiter=delimiter) if record]
        return (sizes.count(sizes[0]) if sizes and sizes[0] > 1 else 0), sizes[0] if sizes else 0

    return max(DELIMITERS, key=fit)


def _parquet(path: Path, file: IO[bytes], compressed: bool) -> Rows:
    parquet: Any = require("pyarrow.parquet", "train")
    row = 0
    with (
        as_input_error(f"{path}: not a complete Parquet file"),
        tempfile.TemporaryFile() if compressed else contextlib.nullcontext(file) as whole,
    ):
        if compressed:  # Parquet is read from its end
            shutil.copyfileobj(file, whole)
        table = parquet.ParquetFile(whole)
        groups = [table.metadata.row_group(i).total_byte_size for i in range(table.num_row_groups)]
        _check_expansion(path, sum(groups))
        refuse_repeated(path.name, table.schema_arrow.names)
        for batch in table.iter_batches(PARQUET_ROWS):
            for place in range(len(batch)):  # one by one, as many rows may share one long text in the file
                row += 1
                yield row, batch.slice(place, 1).to_pylist()[0]


class _Bounded(io.RawIOBase):
    """The content of `file`, decompressed from `path`, while its size is within the limit."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path, self._size = file, path, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        content = self._file.read(len(buffer))
        self._size += len(content)
        _check_expansion(self._path, self._size)
        buffer[: len(content)] = content
        return len(content)


@contextlib.contextmanager
def open_bytes(path: Path, *, compressed: bool) -> Iterator[io.BufferedReader]:
    """The file's content, to be read forwards only; it is decompressed if `compressed`.

    Reading raises InputError once the content has expanded to more than MOST_EXPANDED times the file's size.
    """
    if not compressed:
        with path.open("rb") as file:
            yield file
        return
    with gzip.open(path, "rb") as content:
        yield io.BufferedReader(_Bounded(cast(IO[bytes], content), path), 2**16)


def _check_expansion(path: Path, size: int) -> None:
    """InputError if `size`, the bytes that a compressed file expands to, is out of proportion."""
    limit = max(ALWAYS_EXPANDED, MOST_EXPANDED * path.stat().st_size)
    if size > limit:
        raise InputError(
            f"{path.name}: expands to more than {limit:,} bytes, over {MOST_EXPANDED} times its size, like a "
            "decompression bomb. If you trust the file, save it uncompressed"
        )
