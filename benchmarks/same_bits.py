"""SHA-256 of all that a change without effect must leave as it is, to be compared between two commits.

    python benchmarks/same_bits.py --output FILE [--against FILE]

Trains the demo, a tiny run of every method, and `experiment main` on a toy corpus, in processes of their own and with
two threads. FILE holds a digest of each student's and teacher's weights, and of what each variant got right. Compare on
one machine only: other processors and other versions of PyTorch give other bits. Exit code 1 where digests differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from conftest import as_row, save_checkpoint, toy_examples, write_rows
from metakd.methods import METHODS

SPLITS = {"train": 256, "dev": 16, "test": 24}
QUICK = (
    *("--allow-weak-teacher", "--student", "layers=2", "--max-length", "12", "--batch-size", "16"),
    *("--teacher-epochs", "3", "--teacher-learning-rate", "5e-3", "--shared-epochs", "2", "--dropout", "0.1"),
)


def run(*arguments: object) -> None:
    command = [sys.executable, "-m", "metakd", *map(str, arguments)]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"})


def weights_of(folder: Path) -> dict[str, str]:
    """Digests of all weights of a run, by their place in its folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.safetensors"))
    }


def correct_of(rows: Path) -> dict[str, str]:
    """Digests of what each variant got right, by variant and seed."""
    return {
        f"{row['variant']}, seed {row['seed']}": hashlib.sha256(json.dumps(row["right"]).encode()).hexdigest()
        for row in map(json.loads, rows.read_text(encoding="utf-8").splitlines())
    }


def measure(work: Path) -> dict[str, dict[str, str]]:
    digests = {}
    base, data = save_checkpoint(work / "base"), work / "data"
    for seed, (split, count) in enumerate(SPLITS.items()):
        write_rows(data / f"{split}.jsonl", [as_row(example) for example in toy_examples(count, seed, split)])
    toy = ["--data", data, "--base", base, *QUICK]
    for method in METHODS:
        run("run", *toy, "--method", method, "--output", work / method)
        digests[method] = weights_of(work / method)
    run("experiment", "main", *toy, "--seeds", "0,1", "--output", work / "experiment")
    digests["experiment main"] = correct_of(work / "experiment" / "rows.jsonl")
    run("demo", "--output", work / "demo")
    digests["demo"] = weights_of(work / "demo")
    return digests


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--against", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        digests = measure(Path(folder))
    options.output.write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")
    before = json.loads(options.against.read_text(encoding="utf-8")) if options.against else digests
    changed = [
        f"{run}: {name}"
        for run in before | digests
        for name in before.get(run, {}) | digests.get(run, {})
        if before.get(run, {}).get(name) != digests.get(run, {}).get(name)
    ]
    print(f"{sum(map(len, digests.values()))} digests, {len(changed)} of them changed", *changed, sep="\n")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
