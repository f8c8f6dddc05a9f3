"""Losses during training, for experiment trackers: TensorBoard's files in the run's folder, or another tracker."""

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
    """Raise InputError if the tracker is not installed."""
    if name == "tensorboard":
        require("tensorboardX", "train")
    elif name != "none" and find_spec(name) is None:
        raise InputError(f"--track = {name!r}: not installed; pip install {PACKAGES.get(name, name)}, or --track none")


def trackers(name: str, folder: Path) -> Sequence[TrainerCallback]:
    """Trainer's callbacks for the tracker; TensorBoard's files go into `folder`."""
    if name == "none":
        return []
    if name == "tensorboard":
        from tensorboardX import SummaryWriter

        writer = SummaryWriter(str(folder))
        return [_WriterGuard(writer), TensorBoardCallback(writer)]
    return [callback() for callback in get_reporting_integration_callbacks([name])]


class _WriterGuard(TrainerCallback):
    """Raises the error that ended TensorBoard's writer thread; logging would wait for that thread forever."""

    def __init__(self, writer: Any) -> None:
        self.files = writer.file_writer.event_writer
        self.thread: threading.Thread = self.files._worker
        self.failure: BaseException | None = None
        previous = threading.excepthook

        def note_failure(args: threading.ExceptHookArgs) -> None:
            if args.thread is self.thread:
                self.failure = args.exc_value
            else:
                previous(args)

        threading.excepthook = note_failure
        atexit.register(self.close)  # before the library's, which would end the process with a traceback

    def close(self) -> None:
        """Close the files as far as they can be written."""
        with contextlib.suppress(OSError):
            self.files.close()
        self.files._closed = True

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.failure is not None:
            raise self.failure
