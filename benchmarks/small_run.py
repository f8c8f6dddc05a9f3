"""How long a small run takes, beside an earlier commit: alternating, so that what slows the machine slows both.

    git worktree add ../earlier 5cc6cd2
    python benchmarks/small_run.py --before ../earlier [--times 3]

The run has 240 training, 80 dev and 80 test reviews of the demo, drawn by seed 0 with as many of each domain, and the
default settings; with --allow-weak-teacher, because so few reviews teach little. Both commits use this Python with its
libraries. Writes benchmarks/results/small_run.json: seconds of each run from start to exit, and of its steps.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from metakd.config.settings import DEMO_DATA
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import environment

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "small_run.json"
ROWS = {"train": 240, "dev": 80, "test": 80}


def draw_data(folder: Path) -> None:
    """Write the small data: of each split as many rows of each domain."""
    draw = random.Random(0)
    for split, count in ROWS.items():
        rows = [json.loads(text) for text in (DEMO_DATA / f"{split}.jsonl").read_text("utf-8").splitlines()]
        domains = sorted({row["domain"] for row in rows})
        drawn = [
            row
            for domain in domains
            for row in draw.sample([row for row in rows if row["domain"] == domain], count // len(domains))
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in drawn), "utf-8")


def run(source: Path, data: Path, output: Path) -> dict[str, Any]:
    """Seconds of one run with the metakd in `source`."""
    command = [sys.executable, "-m", "metakd", "run", "--data", data, "--output", output, "--allow-weak-teacher"]
    path = {"PYTHONPATH": str(source / "src")}
    started = time.perf_counter()
    subprocess.run(command, check=True, env=os.environ | path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    results = json.loads((output / "results.json").read_text("utf-8"))
    return {
        "seconds": round(seconds, 1),
        "steps": results["seconds"],
        "commit": results["environment"]["commit"],
        "accuracy": {name: average["accuracy"] for name, average in results["average"].items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="A checkout of the earlier commit.")
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {"before": [], "now": []}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "small"
        data.mkdir()
        draw_data(data)
        for number in range(options.times):
            for name, source in (("before", options.before.resolve()), ("now", ROOT)):
                runs[name].append(run(source, data, Path(folder) / f"{name}{number}"))
                print(name, json.dumps(runs[name][-1]), flush=True)
    before, now = (median(each["seconds"] for each in runs[name]) for name in ("before", "now"))
    write_json(RESULT, {"share": now / before, **runs, "environment": environment()})
    print(f"{now:.1f} of {before:.1f} seconds: {100 * now / before:.0f} percent")


if __name__ == "__main__":
    main()
