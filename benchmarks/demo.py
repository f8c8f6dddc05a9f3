"""The demo as a user runs it: its table, how long it took and how much memory it needed.

    python benchmarks/demo.py

Writes benchmarks/results/demo.json and prints the table that the README shows.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from metakd.utils.artifacts import write_json

RESULT = Path(__file__).parent / "results" / "demo.json"


def main() -> None:
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "demo"
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "metakd", "demo", "--output", str(folder)], check=True)
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # Linux counts in KiB
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        table = (folder / "results.md").read_text(encoding="utf-8")
    results["run"].pop("data")
    RESULT.parent.mkdir(exist_ok=True)
    write_json(RESULT, {"wall_seconds": round(seconds, 1), "peak_memory_bytes": peak, **results})
    print(table)
    print(f"{seconds / 60:.1f} minutes, {peak / 2**30:.2f} GiB at most")


if __name__ == "__main__":
    main()
