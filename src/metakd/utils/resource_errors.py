"""Exhausted resources (memory, disk, file handles), recognised in any library's error, and what helps."""

import errno
import os
import re

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
RUST_ERRNO = re.compile(r"\(os error (\d+)\)")
OUT_OF_MEMORY = re.compile(r"can't allocate memory|out of memory|not enough memory|failed to allocate|bad_alloc", re.I)
TORN_WRITE = re.compile(r"PytorchStreamWriter failed|unexpected pos|file write failed|inline_container")


def exhausted_resource(error: BaseException) -> str | None:
    """A message about the resource whose exhaustion raised `error`; None for every other error."""
    for cause in _causes(error):
        if message := _message(cause):
            path = getattr(cause, "filename", None)
            return f"{path}: {message}" if path else message
    return None


def _causes(error: BaseException | None) -> list[BaseException]:
    """The error, and those that caused it."""
    causes: list[BaseException] = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__
    return causes


def _message(error: BaseException) -> str | None:
    text = str(error)
    number = error.errno if isinstance(error, OSError) else _errno_in(text)
    if message := EXHAUSTED.get(number or 0):
        return message
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(text)):
        return MEMORY
    torn = isinstance(error, RuntimeError) and TORN_WRITE.search(text)
    return f"a file could not be written to its end: {DISK}" if torn else None


def _errno_in(text: str) -> int | None:
    """The system's error number whose digits or words stand in `text`."""
    if match := RUST_ERRNO.search(text):
        return int(match.group(1))
    return next((number for number in EXHAUSTED if os.strerror(number) in text), None)
