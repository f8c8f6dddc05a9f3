"""The one kind of failure that users are meant to see: what is wrong, where, and how to mend it."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from types import ModuleType

SHOWN_FAULTS = 20


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


@contextlib.contextmanager
def noting(problems: list[InputError]) -> Iterator[None]:
    """Keep an InputError among `problems` instead of raising it, so that later checks are made as well."""
    try:
        yield
    except InputError as error:
        problems.append(error)


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
