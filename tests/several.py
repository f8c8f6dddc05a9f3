"""What torchrun starts in tests/test_processes.py: metakd's commands, watched, and killed where they are told to be.

    torchrun --nproc_per_node 2 tests/several.py FOLDER COMMANDS [TITLE UPDATE PLACE]

COMMANDS is a JSON list of lists of words. Gradients of each stretch's first update go to
FOLDER/PLACE/TITLE.safetensors; process PLACE is killed when the stretch TITLE has made UPDATE updates.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from metakd import cli, engine, processes, resuming


def watched(folder: Path, title: str = "", update: int = 0, place: int = 0) -> type[engine._Ticks]:
    """engine._Ticks that also keeps first gradients, and kills."""

    class Watching(engine._Ticks):
        def __init__(self, progress: Any) -> None:
            super().__init__(progress)
            self.name = progress._bar.tasks[0].description

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
            if state.global_step == 0:
                own = folder / str(processes.place())
                own.mkdir(parents=True, exist_ok=True)
                found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
                save_file(found, own / f"{self.name}.safetensors")

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if (self.name, state.global_step, processes.place()) == (title, update, place):
                os.kill(os.getpid(), signal.SIGKILL)

    return Watching


if __name__ == "__main__":
    resuming.CHECKPOINT_SECONDS, resuming.LARGEST_SHARE = 0, 1.0  # a checkpoint after every update
    folder, commands, *doomed = sys.argv[1:]
    engine._Ticks = watched(Path(folder), *doomed[:1], *map(int, doomed[1:]))  # type: ignore[misc]
    for words in json.loads(commands):
        sys.argv = ["metakd", *words]
        try:
            cli.main()
        except SystemExit as stop:
            if stop.code:
                raise
