"""Instance weights: room on the disk for what they are computed from, and how they are distributed."""

import errno
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from conftest import NewRun, read_json
from metakd.pipeline import checks
from metakd.pipeline.weigh import weigh


def test_vectors_that_do_not_fit_on_the_disk_leave_nothing(toy_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run, full = toy_run(), OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr("metakd.pipeline.weigh.reserve", Mock(side_effect=full))
    with pytest.raises(OSError, match="No space left"):
        weigh(run)
    assert {path.name for path in run.folder.iterdir()} == {"run.json", "run.lock"}


def test_manifests_hold_the_distribution_of_weights(finished_run: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Five quantiles in order, and a share between nothing and all; a notice where all weights are alike."""
    for step, key in (("instance_weights", "weights"), ("students/books", "expertise")):
        spread = read_json(finished_run / step / "manifest.json")[key]
        assert len(spread["quantiles"]) == 5
        assert spread["quantiles"] == sorted(spread["quantiles"])
        assert 0 < spread["effective_share"] <= 1
    assert not caplog.text
    assert checks.spread(torch.ones(8), "weights of a test")["effective_share"] == 1
    assert "weights of a test hardly differ" in caplog.text
