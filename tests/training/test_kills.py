"""Runs that are killed in every step go on, and end with the same bits as one that was never stopped."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import FAST, Command, refused


def kills(*options: str) -> dict[str, Any]:
    """The results of benchmarks/kills.py."""
    script = Path(__file__).parents[2] / "benchmarks" / "kills.py"
    done = subprocess.run([sys.executable, str(script), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.slow
def test_one_run_killed_once_in_every_step_ends_as_if_it_had_not_been() -> None:
    """Weights, logs and results.json bit for bit, but for times and latencies (`reproducing.VOLATILE`)."""
    results = kills("--moments", "8", "--signal", "KILL", "--chain")
    assert len({moment["phase"] for moment in results["moments"]}) == 8
    assert [moment["exit_code"] for moment in results["moments"]] == [-signal.SIGKILL] * 8
    assert results["chain"] == {"finished": 0, "differences": {}}
    assert set(results["volatile"]) == {"started", "seconds", "environment", "latency_ms"}


@pytest.mark.slow
def test_runs_stopped_at_eight_moments_end_the_same() -> None:
    """What SIGTERM and Ctrl-C reach says how to go on."""
    codes = {"TERM": 143, "INT": 130}
    results = kills("--moments", "8", "--signal", *codes, "--seed", "1")
    for moment in results["moments"]:
        assert (moment["finished"], moment["differences"]) == (0, {}), moment
        assert moment["exit_code"] == codes[moment["signal"]], moment
        assert moment["told_how_to_go_on"], moment
        assert moment["no_traceback"], moment
    assert {moment["phase"] for moment in results["moments"]} == set(results["events"])


@pytest.mark.slow
def test_a_live_run_keeps_others_off_and_saves_itself(
    toy_data: Path, base: Path, metakd: Command, tmp_path: Path
) -> None:
    """As the shell does it: a second run, --overwrite and a step are refused; SIGTERM leaves a whole checkpoint."""
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "metakd", "run", "--data", toy_data, "--base", base, "--output", folder, *FAST]
    first = subprocess.Popen([*map(str, command), "--teacher-epochs", "2000"], stderr=subprocess.PIPE, text=True)

    def wait_for(pattern: str) -> None:
        while not [*folder.glob(pattern)]:
            assert first.poll() is None
            time.sleep(0.05)

    try:
        wait_for(".meta_teacher.partial")
        begun = (folder / "run.json").read_bytes()
        others = ("run", "--resume"), ("run", "--data", toy_data, "--overwrite"), ("distill",), ("teach", "--seed", "5")
        for words in others:
            message = refused(metakd(*words, "--output", folder))
            assert f"{folder}: another process is using this folder" in message
        assert (folder / "run.json").read_bytes() == begun
        wait_for("tensorboard/**/events*")  # the trainer is there
        first.send_signal(signal.SIGTERM)
        errors = first.communicate(timeout=100)[1]
    finally:
        first.kill()
    assert first.returncode == 128 + signal.SIGTERM, errors
    assert f"stopped by SIGTERM\nFinished work is kept. Continue with: metakd run --output {folder} --resume" in errors
    assert "Traceback" not in errors
    saved = max((folder / "checkpoints").glob("meta_teacher-*/checkpoint-*/manifest.json"))
    assert not (folder / "meta_teacher").exists()
    updates = json.loads((saved.parent / "trainer_state.json").read_text())["global_step"]
    assert 0 < updates < 2000 * 32
