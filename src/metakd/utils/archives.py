"""The bytes of an untrusted file, decompressed within bounds."""

import contextlib
import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from metakd.utils.errors import InputError

MOST_EXPANDED = 100  # times the compressed size; text shrinks to a tenth, a decompression bomb to a thousandth
ALWAYS_EXPANDED = 64 * 2**20  # bytes that a compressed file of any size may expand to
GZIP_MAGIC = b"\x1f\x8b"


class _Bounded(io.RawIOBase):
    """The content of `file`, decompressed from `path`, as long as its size is in proportion."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path, self._size = file, path, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        content = self._file.read(len(buffer))
        self._size += len(content)
        check_expansion(self._path, self._size)
        buffer[: len(content)] = content
        return len(content)


@contextlib.contextmanager
def open_bytes(path: Path, *, compressed: bool) -> Iterator[io.BufferedReader]:
    """The file's content, read forwards; gzip decompresses it where it is compressed.

    Raises InputError, while it is read, once it has expanded to more than MOST_EXPANDED times its size.
    """
    if not compressed:
        with path.open("rb") as file:
            yield file
        return
    with gzip.open(path, "rb") as content:
        yield io.BufferedReader(_Bounded(cast(IO[bytes], content), path), 2**16)


def check_expansion(path: Path, size: int) -> None:
    """InputError where `size`, the bytes that a compressed file expands to, is out of proportion."""
    limit = max(ALWAYS_EXPANDED, MOST_EXPANDED * path.stat().st_size)
    if size > limit:
        raise InputError(
            f"{path.name}: expands to more than {limit:,} bytes, over {MOST_EXPANDED} times its size, as files made to "
            "fill a disk do. If it is yours, write it again uncompressed"
        )


def is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
