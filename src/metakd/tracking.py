"""Losses as training goes on, for others to draw: TensorBoard's files in the run's folder, or a tracker's own place."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, get_reporting_integration_callbacks

from metakd.errors import InputError, require

LOGS_FOLDER = "tensorboard"
PACKAGES = {"comet_ml": "comet-ml"}  # of trackers whose package has another name


def check_tracker(name: str) -> None:
    """Raise InputError where the tracker is not installed."""
    if name == "tensorboard":
        require("tensorboardX", "train")
    elif name != "none" and find_spec(name) is None:
        raise InputError(f"track = {name!r}: not installed; pip install {PACKAGES.get(name, name)}, or --track none")


def trackers(name: str, folder: Path) -> Sequence[TrainerCallback]:
    """What Trainer is to tell of every log of one stretch of training; TensorBoard's files go into `folder`."""
    if name == "none":
        return []
    if name == "tensorboard":
        from tensorboardX import SummaryWriter

        return [TensorBoardCallback(SummaryWriter(str(folder)))]
    (tracker,) = get_reporting_integration_callbacks([name])
    return [tracker()]
