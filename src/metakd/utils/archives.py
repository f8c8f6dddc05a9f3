"""The bytes of a stranger's file, unpacked within bounds."""

from __future__ import annotations

import contextlib
import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from metakd.utils.errors import InputError

MOST_EXPANDED = 100  # times the packed size; text shrinks to a third or a tenth, what is made to burst to a thousandth
ALWAYS_EXPANDED = 64 * 2**20  # bytes that a packed file of any size may give
GZIP_MAGIC = b"\x1f\x8b"


class _Bounded(io.RawIOBase):
    """What `file`, unpacked from `path`, gives, as long as that is in proportion."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path, self._given = file, path, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        found = self._file.read(len(buffer))
        self._given += len(found)
        check_expansion(self._path, self._given)
        buffer[: len(found)] = found
        return len(found)


@contextlib.contextmanager
def open_bytes(path: Path, *, packed: bool) -> Iterator[io.BufferedReader]:
    """The file's content, read forwards; of a packed one what gzip makes of it, as long as that is in proportion.

    Raises InputError, while it is read, for what unpacks to more than MOST_EXPANDED times its size.
    """
    if not packed:
        with path.open("rb") as file:
            yield file
        return
    with gzip.open(path, "rb") as unpacked:
        yield io.BufferedReader(_Bounded(cast(IO[bytes], unpacked), path), 2**16)


def check_expansion(path: Path, size: int) -> None:
    """InputError where a packed file is found to hold `size` bytes, and those are out of proportion."""
    limit = max(ALWAYS_EXPANDED, MOST_EXPANDED * path.stat().st_size)
    if size > limit:
        raise InputError(
            f"{path.name}: unpacks to more than {limit:,} bytes, over {MOST_EXPANDED} times its size, as files do that "
            "are made to fill a disk. If it is yours, write it again unpacked"
        )


def is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
