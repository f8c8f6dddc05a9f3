"""What a machine has run out of: read off whatever a library raises, and said with what helps."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

MEMORY = (
    "memory ran out. A smaller --batch-size, --max-length or base needs less; so does --cache-budget 0 while students "
    "learn, and the limit itself may be higher (ulimit -v, or that of the job)"
)
DISK = "the disk is full. Free some, or give --cache-budget fewer gigabytes"
EXHAUSTED = {
    errno.ENOSPC: DISK,
    errno.EDQUOT: "the disk quota is used up. Free some, or give --cache-budget fewer gigabytes",
    errno.EFBIG: "a file would be larger than is allowed here (ulimit -f, or the file system's limit)",
    errno.EMFILE: "too many files are open. Allow more: ulimit -n 4096",
    errno.ENFILE: "too many files are open on this machine. Wait for other programs to end",
    errno.ENOMEM: MEMORY,
}
NUMBER = re.compile(r"\(os error (\d+)\)")  # as libraries in Rust write it
OUT_OF_MEMORY = re.compile(r"can't allocate memory|out of memory|not enough memory|failed to allocate|bad_alloc", re.I)
TORN_WRITE = re.compile(r"PytorchStreamWriter failed|unexpected pos|file write failed|inline_container")


def exhausted_resource(error: BaseException) -> str | None:
    """What ran out, if that is why `error` was raised; None for every other fault."""
    for cause in _causes(error):
        number = cause.errno if isinstance(cause, OSError) else _number_in(str(cause))
        found = EXHAUSTED.get(number or 0)
        if found is None and (isinstance(cause, MemoryError) or _is_out_of_memory(cause)):
            found = MEMORY
        if found is None and isinstance(cause, RuntimeError) and TORN_WRITE.search(str(cause)):
            found = f"a file could not be written to its end: {DISK}"
        if found is not None:
            place = getattr(cause, "filename", None)
            return f"{place}: {found}" if place else found
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that it came of."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _number_in(text: str) -> int | None:
    """The system's number of an error whose words or number stand in `text`."""
    if match := NUMBER.search(text):
        return int(match.group(1))
    return next((number for number in EXHAUSTED if os.strerror(number) in text), None)


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and bool(OUT_OF_MEMORY.search(str(error)))
