"""The one kind of failure that users are meant to see: what is wrong, where, and how to mend it."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from metakd.utils.resource_errors import exhausted_resource

MOST_FAULTS = 10_000
SHOWN_FAULTS, SHOWN_NAMES, SHOWN_CHARACTERS = 20, 12, 60


class InputError(Exception):
    """Something that the user gave cannot be used. The command line prints the message and exits with code 2."""

    @classmethod
    def collect(cls, what: str, faults: list[str]) -> InputError:
        """One error for all `faults` (at most 20 are written out, the rest is counted)."""
        shown = [f"  - {fault}" for fault in faults[:SHOWN_FAULTS]]
        if len(faults) > SHOWN_FAULTS:
            shown.append(f"  ... and {len(faults) - SHOWN_FAULTS} more")
        noun = "fault" if len(faults) == 1 else "faults"
        return cls("\n".join([f"{what}: {len(faults)} {noun}", *shown]))


class Faults(list[str]):
    """Faults as they are found in `what`; the MOST_FAULTSth raises them all, so that no file can fill the memory."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def append(self, fault: str) -> None:
        super().append(fault)
        if len(self) >= MOST_FAULTS:
            raise InputError.collect(f"{self.what}, read until there were {MOST_FAULTS:,} faults", self)


@contextlib.contextmanager
def noting(problems: list[InputError]) -> Iterator[None]:
    """Keep an InputError among `problems` instead of raising it, so that later checks are made as well."""
    try:
        yield
    except InputError as error:
        problems.append(error)


@contextlib.contextmanager
def refusing(what: str) -> Iterator[None]:
    """Make one InputError of whatever a library raises over a stranger's file: `what`, and the reason in brackets.

    What the machine has run out of is no fault of the file.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if exhausted_resource(error):
            raise
        raise InputError(f"{what} ({first_line(error)})") from None


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def shown(value: Any) -> str:
    """What a user gave, short and on one line."""
    try:
        told = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, or lists in lists in lists
        told = f"a huge {type(value).__name__}"
    return told if len(told) <= SHOWN_CHARACTERS else f"{told[: SHOWN_CHARACTERS - 3]}..."


def listed(names: Sequence[str]) -> str:
    """The first few of the names a user gave, short and on one line."""
    plain = [name.isprintable() and len(name) <= SHOWN_CHARACTERS for name in names[:SHOWN_NAMES]]
    told = [name if as_it_is else shown(name) for name, as_it_is in zip(names, plain, strict=False)]
    return ", ".join(told) + (f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else "")


def printable(message: str) -> str:
    """The message with control characters and halves of characters spelt out, so that no terminal obeys them."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode("ascii") for c in message)


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or say which command installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise InputError(f"This needs {error.name!r}. Install it: pip install 'metakd[{extra}]'") from None


class CheckError(Exception):
    """A result is not what it has to be, for instance a reloaded student that predicts otherwise. Exit code 1."""


class LostProcessError(Exception):
    """Another of several processes that train one model has ended. Exit code 1."""


@contextlib.contextmanager
def going_on(command: str) -> Iterator[None]:
    """Whatever ends what is inside but bad input tells in a note which command goes on."""
    try:
        yield
    except InputError:
        raise
    except BaseException as error:
        error.add_note(f"What is finished is kept. Go on by: {command}")
        raise
