"""Checkpoints from which training resumes bit for bit; incomplete ones are ignored.

Trainer's `enable_jit_checkpoint` falls short of this: it ignores SIGINT, waits three seconds after SIGTERM, and lets
several processes stop at different updates.
"""

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
from metakd.utils.artifacts import changed_files, read_manifest, write_json, write_manifest
from metakd.utils.batch_shares import true_of_any
from metakd.utils.console import console
from metakd.utils.signals import request_stop, stop_requested

CHECKPOINT_SECONDS = 30  # between two checkpoints; writing one takes about a second, as it has three times the weights
LARGEST_SHARE = 0.05  # of the time that writing checkpoints may take
SUMS_FILE = "sums.json"  # of the loss terms since the last log


class CheckpointCallback(TrainerCallback):
    """Saves a checkpoint after an update if the last one is old enough, or if a signal asks training to stop."""

    def __init__(self, keep: bool) -> None:
        self.keep = keep
        self.pause: float = CHECKPOINT_SECONDS
        self.saved = self.begun = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        now = time.monotonic()
        stop, due = true_of_any(stop_requested(), distributed.is_main() and now - self.saved >= self.pause)
        control.should_save = self.keep and (stop or due)
        if stop:
            request_stop()
            control.should_training_stop = True
            saving = " and saving it; a second signal stops at once" * self.keep
            console.print(f"stopping after this update{saving}")
        self.begun = now

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.saved = time.monotonic()
        self.pause = max(CHECKPOINT_SECONDS, (self.saved - self.begun) / LARGEST_SHARE)


def seal_checkpoint(folder: Path, sums: Mapping[str, float]) -> None:
    """Add to Trainer's files the sums of the loss terms and, last of all, the manifest that marks it as complete."""
    write_json(folder / SUMS_FILE, dict(sums))
    write_manifest(folder, {"step": "checkpoint"})


def last_whole_checkpoint(folder: Path) -> tuple[Path | None, dict[str, float]]:
    """The newest complete checkpoint, or None, and its sums; incomplete ones are removed."""
    name = distributed.on_main(lambda: _last_whole(folder))
    if name is None:
        return None, {}
    return folder / name, json.loads((folder / name / SUMS_FILE).read_text(encoding="utf-8"))


def _last_whole(folder: Path) -> str | None:
    while folder.is_dir() and (newest := get_last_checkpoint(str(folder))) is not None:
        checkpoint = Path(newest)
        manifest = read_manifest(checkpoint)
        if manifest is not None and not changed_files(checkpoint, manifest):
            return checkpoint.name
        shutil.rmtree(checkpoint)
    return None


@contextlib.contextmanager
def local_random_state(checkpoint: Path) -> Iterator[Path]:
    """A folder with this process's random state, under the name that Trainer looks for.

    A process that saved none, because there were fewer then, gets the main process's.
    """
    name = "rng_state.pth" if distributed.world_size() == 1 else f"rng_state_{distributed.rank()}.pth"
    candidates = [checkpoint / file for file in (name, "rng_state.pth", "rng_state_0.pth")]
    state = next(path for path in candidates if path.is_file())
    if state.name == name:
        yield checkpoint
        return
    with tempfile.TemporaryDirectory(dir=checkpoint) as folder:  # in the run's folder, like all that is unpickled
        shutil.copy(state, Path(folder) / name)
        yield Path(folder)
