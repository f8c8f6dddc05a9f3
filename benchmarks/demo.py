"""The demo as a user runs it: its table, how long it took and how much memory it needed.

    python benchmarks/demo.py [--tfidf]

Writes benchmarks/results/demo.json and prints the table that the tutorial shows. --tfidf computes the TF-IDF row that
is there again, but for its latency.
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
    parser.add_argument("--tfidf", action="store_true")
    if parser.parse_args().tfidf:
        results = json.loads(RESULT.read_text(encoding="utf-8"))
        tfidf_again(results, load_dataset(DEMO_DATA))
        write_json(RESULT, results | {"tfidf_environment": environment()})
        print(markdown_table(results))
        return
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
