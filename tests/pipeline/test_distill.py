"""Processes that want the same thing take turns."""

import subprocess
import sys
from pathlib import Path

import pytest

from metakd.pipeline.distill import waiting_lock

HOLD = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(1)
"""


def test_who_waits_for_another_process_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "steps" / "books.lock"
    with waiting_lock(path, "trains books"):
        assert not caplog.text
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with waiting_lock(path, "trains books"):
            assert other.stdout.read() == ""  # it has gone
    assert caplog.text.count("another process trains books") == 1
