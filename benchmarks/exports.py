"""The exports of runs beside their students in PyTorch, on every text that the runs were scored on.

    python benchmarks/exports.py clinc150=runs/first/clinc150 banking77=runs/first/banking77 --work runs/exports

Exports each run in float32, and adds to benchmarks/results/exports.json, by name: how many texts have the same labels,
the largest difference of a probability, and the seconds that the command took.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from metakd import load_dataset
from metakd.data.splits import of_domain
from metakd.inference.onnx_backend import OnnxModel
from metakd.inference.torch_backend import TorchModel
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import environment

RESULT = Path(__file__).parent / "results" / "exports.json"


def export(run: Path, output: Path) -> float:
    """Seconds."""
    started = time.monotonic()
    command = ("export", run, "--output", output, "--force")
    subprocess.run([sys.executable, "-m", "metakd", *map(str, command)], check=True)
    return round(time.monotonic() - started, 1)


def parity(run: Path, models: Path) -> dict[str, Any]:
    """Of all students of a run and their exports in `models`."""
    results, same, largest, count = json.loads((run / "results.json").read_text(encoding="utf-8")), 0, 0.0, 0
    texts = load_dataset(results["run"]["data"]).splits[results["split"]]
    for domain in results["domains"]:
        rows = of_domain(texts, domain)
        students = TorchModel.load(run / "students" / domain), OnnxModel.load(models / domain)
        ours, theirs = (student.answers(rows).probabilities for student in students)
        several = students[0].several_labels
        answers = [p > 0.5 if several else p.argmax(1, keepdims=True) for p in (ours, theirs)]
        same += int((answers[0] == answers[1]).all(1).sum())
        largest, count = max(largest, float(np.abs(ours - theirs).max())), count + len(rows)
    return {"texts": count, "same_labels": same, "largest_difference": float(f"{largest:.2g}")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    for each in options.runs:
        name, _, place = each.partition("=")
        seconds = export(Path(place), options.work / name)
        figures = parity(Path(place), options.work / name)
        known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
        write_json(RESULT, {**known, name: figures | {"seconds": seconds, "environment": environment()}})


if __name__ == "__main__":
    main()
