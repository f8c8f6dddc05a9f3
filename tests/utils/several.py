"""What torchrun starts in tests/test_processes.py: metakd's commands, watched, and killed where they are told to be.

    torchrun --nproc_per_node 2 tests/several.py FOLDER COMMANDS [PLACE TITLE UPDATE SIGNAL | PLACE FILE]

COMMANDS is a JSON list of lists of words. Gradients of each stretch's first update go to
FOLDER/PLACE/TITLE.safetensors; process PLACE gets SIGNAL when the stretch TITLE has made UPDATE updates, or is killed
when the main process first opens a file for writing whose path has FILE in it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from metakd.cli import main
from metakd.training import checkpointing, trainer
from metakd.utils import distributed


def watched(
    folder: Path, place: int = 0, title: str = "", update: int = 0, number: int = signal.SIGKILL
) -> type[trainer._Ticks]:
    """engine._Ticks that also keeps first gradients, and kills."""

    class Watching(trainer._Ticks):
        def __init__(self, progress: Any) -> None:
            super().__init__(progress)
            self.name = progress._bar.tasks[0].description

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
            if state.global_step == 0:
                own = folder / str(distributed.rank())
                own.mkdir(parents=True, exist_ok=True)
                found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
                save_file(found, own / f"{self.name}.safetensors")

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if (self.name, state.global_step, distributed.rank()) == (title, update, place):
                os.kill(os.getpid(), number)

    return Watching


def kill_at(file: str, place: int, folder: Path) -> None:
    """Have the main process kill process `place` when it first opens `file` for writing."""
    folder.mkdir(parents=True, exist_ok=True)
    own = int(os.environ["RANK"])
    (folder / f"{own}.pid").write_text(str(os.getpid()))

    struck = False

    def hear(event: str, given: tuple[Any, ...]) -> None:
        nonlocal struck
        if not struck and event == "open" and file in str(given[0]) and given[2] & os.O_ACCMODE:
            struck = True
            os.kill(int((folder / f"{place}.pid").read_text()), signal.SIGKILL)

    if own == 0:
        sys.addaudithook(hear)


if __name__ == "__main__":
    checkpointing.CHECKPOINT_SECONDS, checkpointing.LARGEST_SHARE = 0, 1.0  # a checkpoint after every update
    folder, commands, *doomed = sys.argv[1:]
    place, what, *update = doomed or ("0", "")
    trainer._Ticks = watched(Path(folder), int(place), what, *map(int, update))  # type: ignore[misc]
    if doomed and not update:
        kill_at(what, int(place), Path(folder))
    for words in json.loads(commands):
        sys.argv = ["metakd", *words]
        try:
            main.main()
        except SystemExit as stop:
            if stop.code:
                raise
