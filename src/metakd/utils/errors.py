"""The errors that users are meant to see: what is wrong, where, and how to fix it. Exhausted resources (memory, disk,
file handles) are recognised in any library's error.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from types import ModuleType
from typing import Any, Self

MOST_FAULTS = 10_000
SHOWN_FAULTS, SHOWN_NAMES, SHOWN_CHARACTERS = 20, 12, 60

MEMORY = (
    "out of memory. Use a smaller model or shorter texts, or raise the limit (ulimit -v, or the job's). To train, a "
    "smaller --batch-size; for the teacher, --gradient-checkpointing or --gradient-accumulation 4; for students, "
    "--cache-budget 0"
)
DISK = "the disk is full. Free some space, or to train, lower --cache-budget"
EXHAUSTED = {
    errno.ENOSPC: DISK,
    errno.EDQUOT: "the disk quota is used up. Free some space, or to train, lower --cache-budget",
    errno.EFBIG: "a file would exceed the size limit (ulimit -f, or that of the file system)",
    errno.EMFILE: "too many files are open. Raise the limit: ulimit -n 4096",
    errno.ENFILE: "too many files are open on this machine. Wait for other programs to end",
    errno.ENOMEM: MEMORY,
}
OUT_OF_MEMORY = re.compile(r"can't allocate memory|out of memory|not enough memory|failed to allocate|bad_alloc", re.I)
TORN_WRITE = re.compile(r"PytorchStreamWriter failed|unexpected pos|file write failed|inline_container")


# code in backticks and commands stay as they are
FLAG = re.compile(r"`[^`]*`|\b(?:metakd|pip|python) [^;,()\n]*|--(no-)?([a-z][a-z0-9-]*(?:\.[a-z0-9]+)*)")
_with_flags = ContextVar("with_flags", default=False)


@contextlib.contextmanager
def messages_with_flags() -> Iterator[None]:
    """Inside, messages name flags, as on a command line; elsewhere they name Python arguments."""
    token = _with_flags.set(True)
    try:
        yield
    finally:
        _with_flags.reset(token)


def addressed(message: str) -> str:
    """The message with flags as its reader writes them: in Python, `--drop-leaks` becomes `drop_leaks`."""
    if _with_flags.get():
        return message
    return FLAG.sub(lambda m: m[2].replace("-", "_") + ("=False" if m[1] else "") if m[2] else m[0], message)


def flag(name: str) -> str:
    """The flag of a setting."""
    return f"--{name.replace('_', '-')}"


class InputError(Exception):
    """The user's input cannot be used. The command line prints the message and exits with code 2."""

    def __str__(self) -> str:
        return addressed(super().__str__())

    @classmethod
    def collect(cls, what: str, faults: list[str]) -> InputError:
        """One error for all faults.

        Args:
            what: What has the faults.
            faults: One message each; the first 20 are listed, the rest are counted.
        """
        shown = [f"  - {fault}" for fault in faults[:SHOWN_FAULTS]]
        if len(faults) > SHOWN_FAULTS:
            shown.append(f"  ... and {len(faults) - SHOWN_FAULTS} more")
        return cls("\n".join([f"{what}: {len(faults)} fault{'' if len(faults) == 1 else 's'}", *shown]))


def shell_command(*words: object) -> str:
    """A command of metakd, to be typed as it stands."""
    return f"`{shlex.join(['metakd', *map(str, words)])}`"


def raise_faults(what: str, faults: list[str]) -> None:
    """Raise one InputError for all `faults` in `what`, if there are any."""
    if faults:
        raise InputError.collect(what, faults)


class Faults(list[str]):
    """Faults in `what`; once there are MOST_FAULTS, they are raised, so that no file can fill the memory."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__()
        self.what, self.remedy = what, remedy

    def append(self, fault: str) -> None:
        super().append(fault)
        if len(self) >= MOST_FAULTS:
            whole = InputError.collect(f"{self.what}, not read beyond the first {MOST_FAULTS:,} faults", self)
            raise InputError(f"{whole.args[0]}{self.remedy}")

    def __iadd__(self, faults: Iterable[str]) -> Self:  # type: ignore[misc, override]
        for fault in faults:
            self.append(fault)
        return self


@contextlib.contextmanager
def collecting(problems: list[InputError]) -> Iterator[None]:
    """Append an InputError to `problems` instead of raising it, so that later checks run as well."""
    try:
        yield
    except InputError as error:
        problems.append(error)


@contextlib.contextmanager
def as_input_error(what: str, kinds: tuple[type[Exception], ...] = (Exception,)) -> Iterator[None]:
    """Turn a library's error about an untrusted file into an InputError: `what`, with the reason in brackets.

    An exhausted resource is not the file's fault, so that error is raised unchanged.
    """
    try:
        yield
    except InputError:
        raise
    except kinds as error:
        if exhausted_resource(error):
            raise
        raise InputError(f"{what} ({error_summary(error)})") from None


def error_summary(error: BaseException) -> str:
    """The first line of the error's message, or the name of its class."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def shown(value: Any) -> str:
    """A value from the user's input, short and on one line."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, or lists in lists in lists
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."


def listed(names: Sequence[str]) -> str:
    """The first few names from the user's input, short and on one line."""
    texts = [n if n.isprintable() and len(n) <= SHOWN_CHARACTERS else shown(n) for n in names[:SHOWN_NAMES]]
    return ", ".join(texts) + (f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else "")


def printable(message: str) -> str:
    """The message with control characters and lone surrogates escaped, so that no terminal obeys them."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode("ascii") for c in message)


def install_command(extra: str) -> str:
    """The command that installs an extra, in a clone of the repository, as the README describes."""
    return f"pip install '.[{extra}]'"


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or say which command installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        remedy = f"Install it, in a clone of metakd: {install_command(extra)}"
        raise InputError(f"This needs {error.name!r}. {remedy}") from None


class CheckError(Exception):
    """A result failed a check, for instance a reloaded student that predicts differently. Exit code 1."""


class LostProcessError(Exception):
    """Another of several processes that train one model has ended. Exit code 1."""


@contextlib.contextmanager
def with_resume_hint(command: str) -> Iterator[None]:
    """Add a note with the command that resumes the work to any error except bad input."""
    try:
        yield
    except InputError:
        raise
    except BaseException as error:
        error.add_note(f"Finished work is kept. Continue with: {command}")
        raise


def exhausted_resource(error: BaseException) -> str | None:
    """A message about the resource whose exhaustion raised `error`; None for any other error."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        if message := _exhaustion(cause):
            path = getattr(cause, "filename", None)
            return f"{path}: {message}" if path else message
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    return None


def _exhaustion(error: BaseException) -> str | None:
    text = str(error)
    number = error.errno if isinstance(error, OSError) else _errno_in(text)
    if message := EXHAUSTED.get(number or 0):
        return message
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(text)):
        return MEMORY
    torn = isinstance(error, RuntimeError) and TORN_WRITE.search(text)
    return f"a file could not be written completely: {DISK}" if torn else None


def _errno_in(text: str) -> int | None:
    """The system's error number whose digits (as Rust writes them) or message are in `text`."""
    return next((n for n in EXHAUSTED if f"(os error {n})" in text or os.strerror(n) in text), None)
