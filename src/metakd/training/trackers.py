"""Losses as training goes on, for others to draw: TensorBoard's files in the run's folder, or a tracker's own place."""

from __future__ import annotations

import atexit
import contextlib
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, get_reporting_integration_callbacks

from metakd.utils.errors import InputError, require

LOGS_FOLDER = "tensorboard"
PACKAGES = {"comet_ml": "comet-ml"}  # of trackers whose package has another name


def check_tracker(name: str) -> None:
    """Raise InputError where the tracker is not installed."""
    if name == "tensorboard":
        require("tensorboardX", "train")
    elif name != "none" and find_spec(name) is None:
        raise InputError(f"track = {name!r}: not installed; pip install {PACKAGES.get(name, name)}, or --track none")


class _Alive(TrainerCallback):
    """Raises what stopped the thread that writes TensorBoard's files: whoever logs would wait for it for ever."""

    def __init__(self, writer: Any) -> None:
        self.files = writer.file_writer.event_writer
        self.thread: threading.Thread = self.files._worker
        self.failure: BaseException | None = None
        others = threading.excepthook

        def hear(given: threading.ExceptHookArgs) -> None:
            if given.thread is self.thread:
                self.failure = given.exc_value
            else:
                others(given)

        threading.excepthook = hear
        atexit.register(self.let_go)  # before the library's own, which would end the process with a traceback

    def let_go(self) -> None:
        """Close the files as far as they can be written."""
        with contextlib.suppress(OSError):
            self.files.close()
        self.files._closed = True

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.failure is not None:
            raise self.failure


def trackers(name: str, folder: Path) -> Sequence[TrainerCallback]:
    """What Trainer is to tell of every log of one stretch of training; TensorBoard's files go into `folder`."""
    if name == "none":
        return []
    if name == "tensorboard":
        from tensorboardX import SummaryWriter

        writer = SummaryWriter(str(folder))
        return [_Alive(writer), TensorBoardCallback(writer)]
    (tracker,) = get_reporting_integration_callbacks([name])
    return [tracker()]
