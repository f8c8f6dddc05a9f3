"""Progress bars on a terminal, plain lines elsewhere."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from metakd.utils.errors import addressed, printable

PLAIN_WIDTH = 120  # columns if the output is not a terminal
PLAIN_SECONDS = 30.0  # between two lines of progress there

# No markup: names of domains and labels are the user's, and may look like it.
console = Console(stderr=True, markup=False)  # progress and messages
stdout = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, markup=False)  # results


@cache
def notice(message: str) -> None:
    """Log a warning, each message once per process, however many students it concerns."""
    logging.getLogger("metakd").warning(printable(addressed(message)))


@contextlib.contextmanager
def progress_bar(name: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A bar of `total` updates, if that is known, and the function that moves it: by `advance` or to `completed`.

    That function also takes the `loss`. If the output is not a terminal, the name is printed, and every PLAIN_SECONDS
    a line with the number of updates, the loss and the time left.
    """
    if not console.is_terminal:
        console.print(name, highlight=False)
        yield _PlainProgress(name, total).update
        return
    bar = Progress(
        TextColumn("{task.description:<36}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}", markup=False),
        console=console,
    )
    task = bar.add_task(name, total=total, loss="")
    with bar:
        yield lambda loss=None, **moved: bar.update(task, loss=_loss(loss), **moved)


class _PlainProgress:
    """Progress in lines, for logs."""

    def __init__(self, name: str, total: int | None) -> None:
        self.name, self.total, self.done = name, total, 0
        self.first: int | None = None  # updates done before this process began to count
        self.started = self.printed = time.monotonic()

    def update(self, advance: int = 0, completed: int | None = None, loss: float | None = None) -> None:
        """Count, and print a line if the last one is PLAIN_SECONDS old."""
        if self.first is None:
            self.first = 0 if completed is None else completed - 1
        self.done = self.done + advance if completed is None else completed
        now = time.monotonic()
        if now - self.printed < PLAIN_SECONDS:
            return
        self.printed = now
        parts = [f"{self.done:,}" if self.total is None else f"{self.done:,} of {self.total:,}", _loss(loss)]
        if self.total and self.done > self.first:
            seconds = (now - self.started) / (self.done - self.first) * (self.total - self.done)
            parts.append(f"{timedelta(seconds=round(seconds))} left")
        console.print(f"{self.name}: {', '.join(filter(None, parts))}", highlight=False)


def _loss(value: float | None) -> str:
    return "" if value is None else f"loss {value:.4g}"
