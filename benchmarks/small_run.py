"""How long a small run takes, beside an earlier commit: alternating, so that what slows the machine slows both.

    git worktree add ../earlier 5cc6cd2
    python benchmarks/small_run.py --before ../earlier [--times 3]

The run has 240 training, 80 dev and 80 test reviews of the demo, drawn by seed 0 with as many of each domain, and the
default settings; with --allow-weak-teacher, because so few reviews teach little. As few texts get more updates since
that commit, a third run gets as many as before: "now" against "before" is what a user sees, "same_updates" what became
of the speed. Both commits use this Python with its libraries. Writes benchmarks/results/small_run.json: seconds of each
run from start to exit, and of its steps.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from metakd.config.few_texts import sized_for
from metakd.config.settings import DEMO_DATA, Settings
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import environment

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "small_run.json"
ROWS, LABELS = {"train": 240, "dev": 80, "test": 80}, 2


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


def not_sized() -> list[str]:
    """The options by which few texts are trained like many."""
    settings = Settings()
    changed = sized_for(settings, ROWS["train"], LABELS)
    return [text for name in changed for text in (f"--{name.replace('_', '-')}", str(getattr(settings, name)))]


def run(source: Path, data: Path, output: Path, options: Sequence[str] = ()) -> dict[str, Any]:
    """Seconds of one run with the metakd in `source`."""
    allowed = ["--allow-weak-teacher", *options]
    command = [sys.executable, "-m", "metakd", "run", "--data", str(data), "--output", str(output), *allowed]
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
    kinds: dict[str, tuple[Path, list[str]]] = {
        "before": (options.before.resolve(), []),
        "now": (ROOT, []),
        "same_updates": (ROOT, not_sized()),
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "small"
        data.mkdir()
        draw_data(data)
        for number in range(options.times):
            for name, (source, changes) in kinds.items():
                runs[name].append(run(source, data, Path(folder) / f"{name}{number}", changes))
                print(name, json.dumps(runs[name][-1]), flush=True)
    seconds = {name: median(each["seconds"] for each in times) for name, times in runs.items()}
    shares = {name: seconds[name] / seconds["before"] for name in ("now", "same_updates")}
    write_json(RESULT, {"share": shares, "options": not_sized(), **runs, "environment": environment()})
    for name, share in shares.items():
        print(f"{name}: {seconds[name]:.1f} of {seconds['before']:.1f} seconds, {100 * share:.0f} percent")


if __name__ == "__main__":
    main()
