"""Progress bars on a terminal, one plain line a step elsewhere."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from metakd.utils.errors import printable

PLAIN_WIDTH = 120  # columns where the output is no terminal

# No markup: names of domains and labels are the user's, and may look like it.
console = Console(stderr=True, markup=False)  # progress and messages
stdout = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, markup=False)  # results


@cache
def notice(message: str) -> None:
    """Log a warning, each message once a process however many students it concerns."""
    logging.getLogger("metakd").warning(printable(message))


@contextlib.contextmanager
def progress_bar(name: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A bar of `total` updates, if that is known, and the function that moves it: by `advance` or to `completed`.

    Where the output is no terminal, its name alone is printed.
    """
    bar = Progress(
        TextColumn("{task.description:<36}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task(name, total=total)
    if not console.is_terminal:
        console.print(name, highlight=False)
    with bar:
        yield partial(bar.update, task)
