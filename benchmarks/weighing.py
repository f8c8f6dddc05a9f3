"""Weighing and tokenising many short rows: time and memory as their number grows.

    python benchmarks/weighing.py [--rows 250000 500000 1000000]

The rows are made of drawn words, eight to sixteen each, in four domains and two classes. The encoder has one layer of
random weights and the width of all-MiniLM-L6-v2, with its tokenizer: what is measured is what grows with the rows, and
not the encoder. `anonymous_bytes` is what the process holds by itself; `resident_bytes` counts pages of mapped files
too, which the system may take back. Writes benchmarks/results/weighing.json.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from transformers import BertConfig, BertModel

from metakd.models.hub import ALL_MINILM, resolve
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import environment

RESULT = Path(__file__).parent / "results" / "weighing.json"
WORDS = (
    *("good", "bad", "slow", "quick", "old", "new", "book", "film"),
    *("lamp", "page", "knob", "lid", "was", "and", "not"),
)


def make_encoder(folder: Path) -> Path:
    config = BertConfig(hidden_size=384, num_hidden_layers=1, num_attention_heads=12, intermediate_size=384)
    BertModel(config).save_pretrained(folder)
    for file in resolve(ALL_MINILM.package).glob("*token*.json"):
        shutil.copy(file, folder)
    return folder


def make_rows(path: Path, count: int) -> Path:
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for i in range(count):
            text = f"{' '.join(draw.choices(WORDS, k=draw.randint(8, 16)))} {i}"
            file.write(json.dumps({"text": text, "label": f"{i // 4 % 2}", "domain": f"domain {i % 4}"}) + "\n")
    return path


def watch(process: "subprocess.Popen[bytes]") -> dict[str, int]:
    """The most memory that a process held while it ran, looked at ten times a second."""
    most = {"RssAnon": 0, "VmRSS": 0}
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        for row in status.splitlines():
            name, _, value = row.partition(":")
            if name in most:
                most[name] = max(most[name], int(value.split()[0]) * 1024)
        time.sleep(0.1)
    return {"anonymous_bytes": most["RssAnon"], "resident_bytes": most["VmRSS"]}


def table(results: dict[str, Any]) -> str:
    """The rows of docs/performance.md."""
    rows = ["| rows | seconds | anonymous GB | resident GB |", "|---:|---:|---:|---:|"]
    for run in results["measured"]:
        memory = [f"{run[name] / 1e9:.2f}" for name in ("anonymous_bytes", "resident_bytes")]
        rows.append(f"| {run['rows']:,} | {run['seconds']:.0f} | {' | '.join(memory)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, default=[250_000, 500_000, 1_000_000])
    measured: list[dict[str, Any]] = []
    for count in parser.parse_args().rows:
        with tempfile.TemporaryDirectory() as parent:
            base, data = make_encoder(Path(parent) / "base"), make_rows(Path(parent) / "rows.jsonl", count)
            started = time.perf_counter()
            options = ["--data", data, "--base", base, "--output", Path(parent) / "run", "--student", "layers=1"]
            process = subprocess.Popen([sys.executable, "-m", "metakd", "weigh", *map(str, options)])
            memory = watch(process)
            assert process.wait() == 0
            measured.append({"rows": count, "seconds": round(time.perf_counter() - started, 1), **memory})
            print(measured[-1], flush=True)
    results = {"measured": measured, "environment": environment()}
    write_json(RESULT, results)
    print(table(results))


if __name__ == "__main__":
    main()
