"""SIGTERM and Ctrl-C: training that can save its work shuts down gracefully, everything else stops at once."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A signal ended the command. Not an Exception, so that nothing handles it as an ordinary error."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class _State:
    """The signal that this process has received, and whether its current work shuts down gracefully."""

    requested: int | None = None
    graceful = False


@contextlib.contextmanager
def signals_handled() -> Iterator[None]:
    """Raise Stopped for signals inside; a signal that the caller ignores stays ignored, as nohup needs it."""
    handlers = {n: handler for n in SIGNALS if (handler := signal.getsignal(n)) is not signal.SIG_IGN}
    for number in handlers:
        signal.signal(number, _handle)
    try:
        yield
    finally:
        _State.requested = None  # it was meant for this command, not for what the process does next
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def graceful_shutdown() -> Iterator[None]:
    """Inside, the first signal only sets `stop_requested`, and Stopped is raised at the end; a second signal raises
    it at once."""
    _State.graceful = True
    try:
        yield
    finally:
        _State.graceful = False
    if _State.requested is not None:
        raise Stopped(_State.requested)


def stop_requested() -> bool:
    """Whether a signal has arrived that the current work has not acted on yet."""
    return _State.requested is not None


def request_stop() -> None:
    """Act as if SIGTERM had arrived, because another of several processes has received a signal."""
    _State.requested = _State.requested or signal.SIGTERM


def _handle(number: int, _: FrameType | None) -> None:
    first, _State.requested = _State.requested is None, number
    if not (first and _State.graceful):
        raise Stopped(number)
