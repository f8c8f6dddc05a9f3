"""Runs that are killed in every step go on, and end with the same bits as one that was never stopped."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import FAST

ROOT = Path(__file__).parents[2]


def kills(*given: str) -> dict[str, Any]:
    """What benchmarks/kills.py found."""
    command = [sys.executable, str(ROOT / "benchmarks" / "kills.py"), *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_one_run_killed_once_in_every_step_ends_as_if_it_had_not_been() -> None:
    """Weights, logs and results.json bit for bit, but for times and latencies (`reproducing.VOLATILE`)."""
    found = kills("--moments", "8", "--signal", "KILL", "--chain")
    assert len({moment["phase"] for moment in found["moments"]}) == 8
    assert [moment["exit_code"] for moment in found["moments"]] == [-signal.SIGKILL] * 8
    assert found["chain"] == {"finished": 0, "differences": {}}
    assert set(found["volatile"]) == {"started", "seconds", "environment", "latency_ms"}


@pytest.mark.slow_all
@pytest.mark.parametrize(
    ("signals", "code"), [(["KILL"], {-signal.SIGKILL}), (["TERM", "INT"], {143, 130})], ids=["killed", "asked"]
)
def test_runs_stopped_at_twenty_moments_end_the_same(signals: list[str], code: set[int]) -> None:
    """What SIGTERM and Ctrl-C reach says how to go on."""
    found = kills("--moments", "20", "--signal", *signals, "--seed", "1")
    for moment in found["moments"]:
        assert moment["finished"] == 0, moment
        assert moment["differences"] == {}, moment
        assert moment["exit_code"] in code, moment
        assert moment["told_how_to_go_on"], moment
        assert moment["no_traceback"], moment
    assert {moment["phase"] for moment in found["moments"]} == set(found["events"])


def command(folder: Path, data: Path, base: Path) -> list[str]:
    words = [sys.executable, "-m", "metakd", "run", "--data", data, "--base", base, "--output", folder, *FAST]
    return [*map(str, words), "--teacher-epochs", "2000"]


def test_a_live_run_keeps_others_off_and_saves_itself_when_it_is_asked_to_stop(
    toy_data: Path, checkpoint: Callable[..., Path], metakd: Callable[..., Any], tmp_path: Path
) -> None:
    """As the shell does it: a second run, --overwrite and a step are refused; SIGTERM leaves a whole checkpoint."""
    folder = tmp_path / "run"
    first = subprocess.Popen(command(folder, toy_data, checkpoint()), stderr=subprocess.PIPE, text=True)
    try:
        while not (folder / ".meta_teacher.partial").exists():
            assert first.poll() is None
            time.sleep(0.05)
        begun = (folder / "run.json").read_bytes()
        others = ("run", "--resume"), ("run", "--data", toy_data, "--overwrite"), ("distill",), ("teach", "--seed", "5")
        for given in others:
            code, _, told = metakd(*given, "--output", folder)
            assert code == 2, told
            assert f"{folder}: another process is at work in this folder" in " ".join(told.split())
        assert (folder / "run.json").read_bytes() == begun
        while not [*(folder / "tensorboard").rglob("events*")]:  # the trainer is there
            assert first.poll() is None
            time.sleep(0.05)
        first.send_signal(signal.SIGTERM)
        told = first.communicate(timeout=100)[1]
    finally:
        first.kill()
    assert first.returncode == 128 + signal.SIGTERM, told
    assert f"stopped by SIGTERM\nWhat is finished is kept. Go on by: metakd run --output {folder} --resume" in told
    assert "Traceback" not in told
    saved = max((folder / "checkpoints").glob("meta_teacher-*/checkpoint-*/manifest.json"))
    assert not (folder / "meta_teacher").exists()
    updates = json.loads((saved.parent / "trainer_state.json").read_text())["global_step"]
    assert 0 < updates < 2000 * 32
