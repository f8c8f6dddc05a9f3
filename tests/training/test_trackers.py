"""Losses for TensorBoard, where they are asked for."""

import importlib.util
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event
from transformers import TrainerCallback

from conftest import Command, refused
from metakd.training.trackers import LOGS_FOLDER, check_tracker, trackers
from metakd.utils.errors import InputError


def scalars(folder: Path) -> Iterator[tuple[str, float, int]]:
    """Tag, value and step of all that is logged: records of a length (8 bytes), a sum (4), an event, a sum (4)."""
    for path in folder.glob("events.*"):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
            yield from ((value.tag, value.simple_value, event.step) for value in event.summary.value)


def test_each_stretch_of_training_has_its_curves(finished_run: Path) -> None:
    folders = {path.name for path in (finished_run / LOGS_FOLDER).iterdir()}
    assert folders >= {"teach all domains", "meta_kd all domains%3A share", "meta_kd books%3A predict"}
    logged = [*scalars(finished_run / LOGS_FOLDER / "teach all domains")]
    assert {"train/loss", "train/loss_class", "train/learning_rate"} <= {tag for tag, _, _ in logged}
    steps = [step for tag, _, step in logged if tag == "train/loss"]
    assert steps == sorted(set(steps))


def test_trackers_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trackers("none", tmp_path) == []
    check_tracker("none")
    check_tracker("tensorboard")
    monkeypatch.setattr("metakd.training.trackers.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"track = 'comet_ml': not installed; pip install comet-ml, or track none"):
        check_tracker("comet_ml")


def test_other_trackers_are_those_of_transformers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each setting names a callback of the library; here one of them is as if it were installed."""
    from transformers.integrations import integration_utils

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "wandb", TrainerCallback)
    assert [type(callback) for callback in trackers("wandb", tmp_path)] == [TrainerCallback]


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_a_missing_tracker_stops_a_run_before_it_begins(metakd: Command, toy_data: Path, tmp_path: Path) -> None:
    message = refused(metakd("run", "--data", toy_data, "--track", "wandb", "--output", tmp_path / "run"))
    assert "pip install wandb" in message
    assert not (tmp_path / "run").exists()
