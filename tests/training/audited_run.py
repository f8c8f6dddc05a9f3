"""A whole run, stopped and resumed, under an audit hook; prints what was unpickled as JSON.

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

results: dict[str, list[str]] = {"classes": [], "queue": [], "loads": [], "unsafe": [], "outside": []}
folders = [Path(place).resolve() for place in sys.argv[1:3]]
real_load, real_finish = torch.load, trainer.seal_checkpoint


def audit(event: str, arguments: tuple[object, ...]) -> None:
    """`pickle.find_class` is audited whenever pickle looks for something to call; weights_only never gets there."""
    if event == "pickle.find_class":
        files = [frame.f_code.co_filename for frame, _ in traceback.walk_stack(None)]
        in_queue = any("tensorboardX" in file for file in files)  # its events, from one thread to another
        results["queue" if in_queue else "classes"].append(f"{arguments[0]}.{arguments[1]} in {files[0]}")


def load(file: object, *rest: object, **how: object) -> object:
    place = Path(str(getattr(file, "name", file))).resolve()
    results["loads"].append(place.name)
    if how.get("weights_only") is not True:
        results["unsafe"].append(str(place))
    if not any(place.is_relative_to(folder) for folder in folders):
        results["outside"].append(str(place))
    return real_load(file, *rest, **how)


def finish_and_stop(folder: Path, sums: Mapping[str, float]) -> None:
    real_finish(folder, sums)
    trainer.seal_checkpoint = real_finish
    checkpointing.CHECKPOINT_SECONDS = 3600
    raise KeyboardInterrupt


def main() -> None:
    sys.addaudithook(audit)
    torch.load = load
    checkpointing.CHECKPOINT_SECONDS = 0
    trainer.seal_checkpoint = finish_and_stop
    sys.argv = ["metakd", *sys.argv[3:]]
    try:
        command_line.main()
    except (KeyboardInterrupt, SystemExit):
        results["stopped"] = [path.name for path in folders[0].rglob("checkpoint-*")]
    sys.argv.append("--resume")
    try:
        command_line.main()
    except SystemExit as end:
        results["code"] = [str(end.code)]
    count = len(results["classes"])
    pickle.loads(pickle.dumps(Path))  # a hook that hears nothing would find nothing
    results["hook_hears"] = results["classes"][count:]
    del results["classes"][count:]
    print("\n" + json.dumps(results))


if __name__ == "__main__":
    main()
