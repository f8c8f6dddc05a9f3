"""The exports of runs beside their students in PyTorch, on every text that the runs were scored on.

    python benchmarks/exports.py clinc150=runs/first/clinc150 banking77=runs/first/banking77 --work runs/exports

Exports each run in float32, and adds to benchmarks/results/exports.json, by name: how many texts have the same labels,
the largest difference of a probability, and the seconds that the command took.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from metakd import load_dataset
from metakd.config.settings import Settings
from metakd.data.schema import folder_name
from metakd.data.splits import of_domain
from metakd.inference.long_texts import Model
from metakd.inference.onnx_backend import OnnxModel
from metakd.inference.torch_backend import TorchModel
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import environment

RESULT = Path(__file__).parent / "results" / "exports.json"


def export(run: Path, output: Path) -> float:
    """Export the run in float32 into a new folder; the seconds that it took."""
    shutil.rmtree(output, ignore_errors=True)
    started = time.monotonic()
    command = ("export", run, "--output", output, "--force")
    subprocess.run([sys.executable, "-m", "metakd", *map(str, command)], check=True)
    return round(time.monotonic() - started, 1)


def parity(run: Path, models: Path) -> dict[str, Any]:
    """How far the exports in `models` agree with the run's students, on all windows of all texts that it scored."""
    results, same, largest, count = json.loads((run / "results.json").read_text(encoding="utf-8")), 0, 0.0, 0
    settings = Settings.build(results["run"]["settings"])
    data = load_dataset(results["run"]["data"], settings.seed, **settings.reading())
    for domain in data.domains:
        rows, name = of_domain(data.splits[results["split"]], domain), folder_name(domain)
        students: list[Model] = [TorchModel.load(run / "students" / name), OnnxModel.load(models / name)]
        for student in students:
            student.read_as(student.reading.model_copy(update={"enough": None}))
        ours, theirs = (student.answers(rows).probabilities for student in students)
        several = students[0].several_labels
        chosen = [
            p > student.thresholds if several else p.argmax(1, keepdims=True)
            for p, student in zip((ours, theirs), students, strict=True)
        ]
        same += int((chosen[0] == chosen[1]).all(1).sum())
        largest, count = max(largest, float(np.abs(ours - theirs).max())), count + len(rows)
    return {"texts": count, "same_labels": same, "largest_difference": float(f"{largest:.2g}")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    runs = [each.partition("=") for each in options.runs]
    if wrong := [each for each, (name, _, place) in zip(options.runs, runs, strict=True) if "/" in name or not place]:
        parser.error(f"expected NAME=RUN, as in demo=runs/demo: {', '.join(wrong)}")
    for name, _, place in runs:
        seconds = export(Path(place), options.work / name)
        figures = parity(Path(place), options.work / name)
        known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
        write_json(RESULT, {**known, name: figures | {"seconds": seconds, "environment": environment()}})


if __name__ == "__main__":
    main()
