"""A whole run, stopped and gone on with, under an audit hook; prints what was unpickled as JSON.

python audited_run.py RUN BASE ARGUMENTS-OF-METAKD...
"""

import json
import pickle
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

import torch

from metakd.cli import main as command_line
from metakd.training import checkpointing, trainer

found: dict[str, list[str]] = {"classes": [], "queue": [], "loads": [], "unsafe": [], "strange": []}
own = [Path(place).resolve() for place in sys.argv[1:3]]
real_load, real_finish = torch.load, trainer.seal_checkpoint


def heard(event: str, arguments: tuple[object, ...]) -> None:
    """`pickle.find_class` is told whenever pickle looks for something to call; weights_only never gets there."""
    if event == "pickle.find_class":
        files = [frame.f_code.co_filename for frame, _ in traceback.walk_stack(None)]
        own_queue = any("tensorboardX" in file for file in files)  # its events, from one thread to another
        found["queue" if own_queue else "classes"].append(f"{arguments[0]}.{arguments[1]} in {files[0]}")


def load(file: object, *rest: object, **how: object) -> object:
    place = Path(str(getattr(file, "name", file))).resolve()
    found["loads"].append(place.name)
    if how.get("weights_only") is not True:
        found["unsafe"].append(str(place))
    if not any(place.is_relative_to(folder) for folder in own):
        found["strange"].append(str(place))
    return real_load(file, *rest, **how)


def finish_and_stop(folder: Path, sums: Mapping[str, float]) -> None:
    real_finish(folder, sums)
    trainer.seal_checkpoint = real_finish
    checkpointing.CHECKPOINT_SECONDS = 3600
    raise KeyboardInterrupt


def main() -> None:
    sys.addaudithook(heard)
    torch.load = load
    checkpointing.CHECKPOINT_SECONDS = 0
    trainer.seal_checkpoint = finish_and_stop
    sys.argv = ["metakd", *sys.argv[3:]]
    try:
        command_line.main()
    except (KeyboardInterrupt, SystemExit):
        found["stopped"] = [path.name for path in own[0].rglob("checkpoint-*")]
    sys.argv.append("--resume")
    try:
        command_line.main()
    except SystemExit as end:
        found["code"] = [str(end.code)]
    heard_of = len(found["classes"])
    pickle.loads(pickle.dumps(Path))  # a hook that hears nothing would find nothing
    found["hook_hears"] = found["classes"][heard_of:]
    del found["classes"][heard_of:]
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
