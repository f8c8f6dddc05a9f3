"""SIGTERM and Ctrl-C: who can save what was done comes to an end by itself, everything else stops at once."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A signal ended the command. No Exception, so that nothing takes it for a fault that can be mended."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class _State:
    """What one process has been asked, and whether somebody is about to obey."""

    asked: int | None = None
    patient = False


@contextlib.contextmanager
def signals_handled() -> Iterator[None]:
    """Turn the signals into Stopped inside; one that the caller had ignored stays so, as nohup wants it."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    taken = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in taken:
        signal.signal(number, _handle)
    try:
        yield
    finally:
        _State.asked = None  # what was asked of one command is not asked of what this process does next
        for number, handler in taken.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def graceful_shutdown() -> Iterator[None]:
    """Inside, the first signal is only noted, for `is_asked`; Stopped is raised at the end. A second does not wait."""
    _State.patient = True
    try:
        yield
    finally:
        _State.patient = False
    if _State.asked is not None:
        raise Stopped(_State.asked)


def stop_requested() -> bool:
    """Whether a signal has come that waits to be obeyed."""
    return _State.asked is not None


def request_stop() -> None:
    """Count as asked by SIGTERM, since another process of several has been."""
    _State.asked = _State.asked or signal.SIGTERM


def _handle(number: int, _: FrameType | None) -> None:
    first, _State.asked = _State.asked is None, number
    if not (first and _State.patient):
        raise Stopped(number)
