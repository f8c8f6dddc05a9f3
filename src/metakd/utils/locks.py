"""One process at a time where two would spoil each other's work: the second is refused, or waits."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from metakd.utils import distributed
from metakd.utils.artifacts import RUN_FILE
from metakd.utils.console import notice
from metakd.utils.errors import InputError

LOCK_FILE = "run.lock"
ASKING = 2.0  # seconds; others who only ask hold the lock for a moment


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the folder of a run; InputError where another process does. A process that holds it may enter again."""
    held: list[BaseFileLock] = []
    distributed.on_main(lambda: held.append(_lock_of(folder)))
    try:
        yield
    finally:
        for lock in held:
            lock.release()


def refuse_foreign(folder: Path, signs: Collection[str] = (RUN_FILE,), what: str = "run") -> None:
    """InputError where something lies there without one of the `signs` of what may be gone on with or be removed."""
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    strange = {name for name in there if not name.startswith(".")} - {LOCK_FILE}
    if (strange and not there & {*signs}) or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder} is there already, and no {what} is in it; choose another --output")


def refuse_beside_others(folder: Path) -> None:
    """InputError where another process holds the folder of a run; several that only ask may be at work together."""
    distributed.on_main(lambda: _lock_of(folder, wait=ASKING).release())


def refuse_if_held(folder: Path) -> None:
    """InputError where another process holds the folder of a run, before anything is read; no folder is made."""
    if distributed.is_main() and (folder / LOCK_FILE).exists():
        _lock_of(folder, wait=ASKING).release()


def refuse_while_held(locks: Iterable[Path]) -> None:
    """InputError where another process holds one of the locks that are there."""
    for path in filter(Path.exists, locks):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            raise InputError(f"{path}: another process is at work there; wait until it has ended") from None


def _lock_of(folder: Path, wait: float = 0) -> BaseFileLock:
    """The lock on a run's folder, acquired. The system frees it when its process ends, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE, is_singleton=True)
        lock.acquire(timeout=wait)
    except Timeout:
        raise InputError(
            f"{folder}: another process is at work in this folder; wait until it has ended, or choose another --output"
        ) from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be written to ({error.strerror})") from None
    return lock


@contextlib.contextmanager
def waiting_lock(path: Path, what: str) -> Iterator[None]:
    """Hold the lock; while another process holds it, say so once and wait. The main process has it for all."""
    if not distributed.is_main():
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        notice(f"waiting: another process {what} ({path})")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
