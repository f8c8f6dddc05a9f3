"""The demo as a user runs it: its table, how long it took and how much memory it needed.

    python benchmarks/demo.py [--output benchmarks/results/demo-float32.json] [--tfidf]

Writes --output, by default benchmarks/results/demo.json, and prints the table: that of demo.json is the tutorial's, and
demo-float32.json is of two cores that do not multiply bfloat16 natively. --tfidf computes the TF-IDF row that is there
again, but for its latency.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from amazon import tfidf_again

from metakd.config.settings import DEMO_DATA
from metakd.data.dataset import load_dataset
from metakd.evaluation.tables import markdown_table
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import environment

RESULT = Path(__file__).parent / "results" / "demo.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--tfidf", action="store_true")
    options = parser.parse_args()
    if options.tfidf:
        results = json.loads(options.output.read_text(encoding="utf-8"))
        tfidf_again(results, load_dataset(DEMO_DATA))
        write_json(options.output, results | {"tfidf_environment": environment()})
        print(markdown_table(results))
        return
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "demo"
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "metakd", "demo", "--output", str(folder)], check=True)
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # Linux counts in KiB
        results = json.loads((folder / "results.json").read_text(encoding="utf-8").replace(str(folder), "runs/demo"))
        table = (folder / "results.md").read_text(encoding="utf-8")
    results["run"].pop("data")
    write_json(options.output, {"wall_seconds": round(seconds, 1), "peak_memory_bytes": peak, **results})
    print(table)
    print(f"{seconds / 60:.1f} minutes, {peak / 2**30:.2f} GiB at most")


if __name__ == "__main__":
    main()
