"""Locks on folders that only one process may use at a time: a second one is refused, or waits."""

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
    """Lock the folder of a run; InputError if another process has. A process that has the lock may enter again."""
    locks: list[BaseFileLock] = []
    distributed.on_main(lambda: locks.append(_acquired(folder)))
    try:
        yield
    finally:
        for lock in locks:
            lock.release()


def refuse_if_locked(folder: Path) -> None:
    """InputError if another process has locked the folder of a run. Several may check at once; no folder is made."""
    if distributed.is_main() and (folder / LOCK_FILE).exists():
        _acquired(folder, wait=CHECK_SECONDS).release()


def refuse_if_any_locked(paths: Iterable[Path]) -> None:
    """InputError if another process holds one of these lock files; a missing file is not a lock."""
    for path in filter(Path.exists, paths):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            raise InputError(f"{path}: another process holds this lock; wait until it ends") from None


def refuse_unrelated(folder: Path, signs: Collection[str] = (RUN_FILE,), what: str = "run") -> None:
    """InputError if `folder` has files but none of the `signs` of a `what`, which may be resumed or removed."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    files = {name for name in names if not name.startswith(".")} - {LOCK_FILE}
    if (files and not names & {*signs}) or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder} already exists and has no {what} in it; choose another --output")


def _acquired(folder: Path, wait: float = 0) -> BaseFileLock:
    """The acquired lock on a run's folder. The system frees it when its process ends for any reason."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE, is_singleton=True)
        lock.acquire(timeout=wait)
    except Timeout:
        raise InputError(
            f"{folder}: another process is using this folder; wait until it ends, or choose another --output"
        ) from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be written to ({error.strerror})") from None
    return lock


@contextlib.contextmanager
def waiting_lock(path: Path, work: str) -> Iterator[None]:
    """Hold the lock for all processes of this command; if another command holds it, print one notice and wait.

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
