"""How long `metakd inspect` takes on a million rows, and how much memory.

    python benchmarks/inspection.py [--rows 1000000] [--format jsonl|csv]

Writes reviews of the demo's words, four domains and two labels, in a temporary folder, and adds its figures for the
format to benchmarks/results/inspection.json.
"""

import argparse
import csv
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from metakd import load_dataset
from metakd.config.settings import DEMO_DATA
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import environment

RESULT = Path(__file__).parent / "results" / "inspection.json"


def rows(count: int) -> Iterator[dict[str, str]]:
    """Texts of 15 to 60 words drawn from the demo's reviews, one in a hundred twice."""
    draw = random.Random(0)
    examples = load_dataset(DEMO_DATA).train
    words = [word for example in examples for word in example.text.split()]
    text = ""
    for number in range(count):
        start = draw.randrange(len(words) - 60)
        text = text if number % 100 == 99 else " ".join(words[start : start + draw.randint(15, 60)])
        example = examples[number % len(examples)]
        yield {"text": text, "label": example.label, "domain": example.domain}


def write(path: Path, count: int) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows(count))
        else:
            table = csv.DictWriter(file, ["text", "label", "domain"])
            table.writeheader()
            table.writerows(rows(count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--format", choices=("jsonl", "csv"), default="jsonl")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows.{options.format}"
        write(path, options.rows)
        size = path.stat().st_size
        started = time.perf_counter()
        command = [sys.executable, "-m", "metakd", "inspect", str(path), "--json"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - started
    results = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    results[options.format] = {
        "rows": json.loads(done.stdout)["rows"],
        "file_bytes": size,
        "wall_seconds": round(seconds, 1),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,  # Linux counts in KiB
        "environment": environment(),
    }
    write_json(RESULT, results)
    print(options.format, {key: value for key, value in results[options.format].items() if key != "environment"})


if __name__ == "__main__":
    main()
