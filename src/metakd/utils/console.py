"""Progress bars on a terminal, one plain line a step elsewhere."""

from __future__ import annotations

import logging
import sys
from functools import cache
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from metakd.utils.errors import printable

PLAIN_WIDTH = 120  # columns where the output is no terminal

# Names of domains and labels are the user's, and may look like Rich's markup: none is read.
console = Console(stderr=True, markup=False)  # what goes on
stdout = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, markup=False)  # what was found


@cache
def notice(message: str) -> None:
    """Warn of something that the user should know, once a process however many students it concerns."""
    logging.getLogger("metakd").warning(printable(message))


class Progress:
    """A bar named `name` of `total` updates, if that is known; nothing but its name is printed where nobody watches."""

    def __init__(self, name: str, total: int | None) -> None:
        self._bar = RichProgress(
            TextColumn("{task.description:<36}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=total)
        if not console.is_terminal:
            console.print(name, highlight=False)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, steps: int) -> None:
        self._bar.advance(self._task, steps)

    def update(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total)
