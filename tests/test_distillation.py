"""Processes that want the same thing take turns."""

import threading
from pathlib import Path

import pytest
from filelock import FileLock

from metakd import distillation


def test_who_waits_for_another_process_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "steps" / "books.lock"
    with distillation._alone(path, "trains books"):
        assert not caplog.text
    held = FileLock(path, thread_local=False)
    held.acquire()
    threading.Timer(0.2, held.release).start()
    with distillation._alone(path, "trains books"):
        assert not held.is_locked
    assert caplog.text.count("another process trains books") == 1
