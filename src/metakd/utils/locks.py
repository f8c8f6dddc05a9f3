"""Locks on folders that two processes at once would spoil: the second is refused, or waits."""

import contextlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from metakd.utils import distributed
from metakd.utils.artifacts import RUN_FILE
from metakd.utils.console import notice
from metakd.utils.errors import InputError

LOCK_FILE = "run.lock"
CHECK_SECONDS = 2.0  # to wait for other processes that only check the lock, which takes a moment


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the folder of a run; InputError where another process does. A process that holds it may enter again."""
    locks: list[BaseFileLock] = []
    distributed.on_main(lambda: locks.append(_acquired(folder)))
    try:
        yield
    finally:
        for lock in locks:
            lock.release()


def refuse_if_locked(folder: Path) -> None:
    """InputError where another process holds the folder of a run. Several may check at once; no folder is made."""
    if distributed.is_main() and (folder / LOCK_FILE).exists():
        _acquired(folder, wait=CHECK_SECONDS).release()


def refuse_if_any_locked(paths: Iterable[Path]) -> None:
    """InputError where another process holds one of these lock files; a file that is missing is no lock."""
    for path in filter(Path.exists, paths):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            raise InputError(f"{path}: another process is at work there; wait until it has ended") from None


def refuse_unrelated(folder: Path, signs: Collection[str] = (RUN_FILE,), what: str = "run") -> None:
    """InputError where `folder` has files but none of the `signs` of a `what`, which may be resumed or removed."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    files = {name for name in names if not name.startswith(".")} - {LOCK_FILE}
    if (files and not names & {*signs}) or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder} is there already, and no {what} is in it; choose another --output")


def _acquired(folder: Path, wait: float = 0) -> BaseFileLock:
    """The acquired lock on a run's folder. The system frees it when its process ends, however it ends."""
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
def waiting_lock(path: Path, work: str) -> Iterator[None]:
    """Hold the lock for all processes of this command; while another command holds it, print a notice once and wait.

    `work` completes the notice "another process ...".
    """
    if not distributed.is_main():
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        acquired = lock.acquire(timeout=0)
    except Timeout:
        notice(f"waiting: another process {work} ({path})")
        acquired = lock.acquire()
    with acquired:
        yield
