"""What torchrun starts in test_distributed.py: metakd's commands, watched, and killed where the test wants it.

    torchrun --nproc_per_node 2 tests/utils/several.py FOLDER COMMANDS [RANK TITLE UPDATE SIGNAL | RANK FILE]

COMMANDS is a JSON list of lists of words. Gradients at the first update of each stage go to
FOLDER/RANK/TITLE.safetensors; process RANK gets SIGNAL when the stage TITLE has made UPDATE updates, or is killed when
the main process first opens a file for writing whose path contains FILE.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from transformers import TrainerCallback

from metakd.cli import main
from metakd.training import checkpointing, trainer
from metakd.utils import distributed

HRKD_EPSILON = 1e-6  # of AdamW, whose 1e-8 is as small as what rounding leaves in the gradients of hrkd's graphs


def watched(
    folder: Path, rank: int = 0, title: str = "", update: int = 0, number: int = signal.SIGKILL
) -> type[trainer._Trainer]:
    """trainer._Trainer that also saves the first gradients, sends the signal, and has HRKD_EPSILON for hrkd."""

    class Watch(TrainerCallback):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
            if state.global_step == 0:
                gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
                path = folder / str(distributed.rank()) / f"{self.name}.safetensors"
                path.parent.mkdir(parents=True, exist_ok=True)
                save_file(gradients, path)

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if (self.name, state.global_step, distributed.rank()) == (title, update, rank):
                os.kill(os.getpid(), number)

    class WatchedTrainer(trainer._Trainer):
        def __init__(self, *, name: str, **options: Any) -> None:
            if name.startswith("hrkd"):
                options["args"].adam_epsilon = HRKD_EPSILON
            super().__init__(name=name, **options)
            self.add_callback(Watch(name))

    return WatchedTrainer


def kill_at(file: str, rank: int, folder: Path) -> None:
    """Have the main process kill process `rank` when it first opens `file` for writing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{os.environ['RANK']}.pid").write_text(str(os.getpid()))
    killed = False

    def kill(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal killed
        if not killed and event == "open" and file in str(arguments[0]) and arguments[2] & os.O_ACCMODE:
            killed = True
            os.kill(int((folder / f"{rank}.pid").read_text()), signal.SIGKILL)

    if os.environ["RANK"] == "0":
        sys.addaudithook(kill)


if __name__ == "__main__":
    checkpointing.CHECKPOINT_SECONDS, checkpointing.LARGEST_SHARE = 0, 1.0  # a checkpoint after every update
    folder, commands, *killed = sys.argv[1:]
    rank, where, *update = killed or ("0", "")
    trainer._Trainer = watched(Path(folder), int(rank), where, *map(int, update))  # type: ignore[misc]
    if killed and not update:
        kill_at(where, int(rank), Path(folder))
    for words in json.loads(commands):
        sys.argv = ["metakd", *words]
        try:
            main.main()
        except SystemExit as stop:
            if stop.code:
                raise
