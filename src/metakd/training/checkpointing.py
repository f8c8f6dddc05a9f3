"""When training puts itself on disk, and what it goes on from: a checkpoint is whole, or ignored."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from metakd.utils import distributed
from metakd.utils.artifacts import changed_files, read_manifest, seal, write_json
from metakd.utils.batch_shares import true_of_any
from metakd.utils.console import console
from metakd.utils.signals import request_stop, stop_requested

CHECKPOINT_SECONDS = 30  # writing one takes about a second: it holds three times the weights
LARGEST_SHARE = 0.05  # of the time that checkpoints may take, where writing them is slow
SUMS_FILE = "sums.json"  # of the loss terms since they were last logged


class CheckpointCallback(TrainerCallback):
    """Saves training after any update that is far enough from the last save, and where a signal asks it to stop."""

    def __init__(self, keep: bool) -> None:
        self.keep = keep
        self.pause: float = CHECKPOINT_SECONDS
        self.saved = self.begun = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        now = time.monotonic()
        asked, due = true_of_any(stop_requested(), distributed.is_main() and now - self.saved >= self.pause)
        control.should_save = self.keep and (asked or due)
        if asked:
            request_stop()
            control.should_training_stop = True
            console.print(
                "stopping after this update" + self.keep * ", once it is saved; a second signal does not wait"
            )
        self.begun = now

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.saved = time.monotonic()
        self.pause = max(CHECKPOINT_SECONDS, (self.saved - self.begun) / LARGEST_SHARE)


def seal_checkpoint(folder: Path, sums: Mapping[str, float]) -> None:
    """Make whole what Trainer has just written: the sums that it does not know of, and the manifest."""
    write_json(folder / SUMS_FILE, dict(sums))
    seal(folder, {"step": "checkpoint"})


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; torn ones are removed."""
    name = distributed.on_main(lambda: _last_whole(folder))
    return folder / name if name else None


def _last_whole(folder: Path) -> str | None:
    while folder.is_dir() and (newest := get_last_checkpoint(str(folder))) is not None:
        found = Path(newest)
        manifest = read_manifest(found)
        if manifest is not None and not changed_files(found, manifest):
            return found.name
        shutil.rmtree(found)
    return None


def read_loss_sums(checkpoint: Path) -> dict[str, float]:
    """The sums that `finish_checkpoint` put there."""
    return dict(json.loads((checkpoint / SUMS_FILE).read_text(encoding="utf-8")))


@contextlib.contextmanager
def process_random_state(checkpoint: Path) -> Iterator[Path]:
    """A folder with the state of this process' random numbers, under the name that Trainer looks for.

    Of a process that did not save one, as there were fewer or as there was one alone, it is the main process'.
    """
    name = "rng_state.pth" if distributed.world_size() == 1 else f"rng_state_{distributed.rank()}.pth"
    known = [checkpoint / other for other in (name, "rng_state.pth", "rng_state_0.pth")]
    state = next(path for path in known if path.is_file())
    if state.name == name:
        yield checkpoint
        return
    with tempfile.TemporaryDirectory(dir=checkpoint) as folder:  # within the run's own folder, as all that is unpickled
        shutil.copy(state, Path(folder) / name)
        yield Path(folder)
