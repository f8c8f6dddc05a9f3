"""Signals, and two processes in one folder."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from conftest import reopen
from metakd import InputError
from metakd.pipeline.run_all import clear
from metakd.utils.locks import LOCK_FILE, refuse_if_locked, run_lock
from metakd.utils.signals import Stopped, graceful_shutdown, signals_handled, stop_requested


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_at_once_where_nothing_can_be_saved(number: int, code: int) -> None:
    before = signal.signal(number, signal.default_int_handler)  # who started the tests may have it ignored
    try:
        with pytest.raises(Stopped) as stop, signals_handled():
            signal.raise_signal(number)
        assert stop.value.exit_code == code
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


def test_the_first_signal_waits_for_a_graceful_shutdown_and_the_second_does_not() -> None:
    reached = []

    def work(signals: int) -> None:
        with signals_handled(), graceful_shutdown():
            assert not stop_requested()
            for _ in range(signals):
                signal.raise_signal(signal.SIGTERM)
            assert stop_requested()
            reached.append("the end")

    for signals in (1, 2):
        with pytest.raises(Stopped):
            work(signals)
        assert reached == ["the end"]
        assert not stop_requested()  # of what this process does next


def test_what_the_caller_ignores_stays_ignored() -> None:
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals_handled():
            signal.raise_signal(signal.SIGINT)
        assert not stop_requested()
    finally:
        signal.signal(signal.SIGINT, handler)


def test_an_error_in_a_graceful_shutdown_is_not_hidden_by_the_signal() -> None:
    def work() -> None:
        with signals_handled(), graceful_shutdown():
            signal.raise_signal(signal.SIGTERM)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        work()


def test_a_run_is_not_removed_while_a_student_of_it_is_trained(run_copy: Path) -> None:
    (run_copy / "checkpoints").mkdir(exist_ok=True)
    lock = FileLock(run_copy / "checkpoints" / "meta_kd-books-0123.lock")
    with lock, pytest.raises(InputError, match="another process holds this lock"):
        clear(reopen(run_copy))
    assert (run_copy / "students" / "books" / "model.safetensors").is_file()


def test_a_folder_is_held_by_one_process_and_free_when_that_is_killed(tmp_path: Path) -> None:
    """The holder may enter again; a lock file that a killed process has left behind locks nobody out."""
    holder = f"import sys, time; from filelock import FileLock\nwith FileLock({str(tmp_path / LOCK_FILE)!r}): "
    holder += "print('held', flush=True); time.sleep(100)"
    other = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        for attempt in (lambda: run_lock(tmp_path).__enter__(), lambda: refuse_if_locked(tmp_path)):
            with pytest.raises(InputError, match="another process is using this folder"):
                attempt()
    finally:
        other.kill()
        other.wait()
    assert (tmp_path / LOCK_FILE).exists()
    moment = threading.Timer(0.2, (lock := FileLock(tmp_path / LOCK_FILE, thread_local=False)).release)
    lock.acquire()
    moment.start()
    refuse_if_locked(tmp_path)  # another that only checks
    with run_lock(tmp_path), run_lock(tmp_path):
        refuse_if_locked(tmp_path)
