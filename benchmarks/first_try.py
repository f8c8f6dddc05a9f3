"""What a newcomer gets: `metakd run --data X --output Y` and nothing else, on several corpora.

    python tests/tickets.py tickets.jsonl
    python benchmarks/first_try.py tickets=tickets.jsonl --work runs/first --options=--skip-bad-rows

Adds to benchmarks/results/first_try.json, by name: minutes, accuracy by model, rows, and the settings that few texts
have changed. With --rows, a corpus is cut down to as many rows of train of each label.
"""

import argparse
import json
import random
import shlex
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from metakd import load_dataset
from metakd.config.settings import Settings
from metakd.utils.artifacts import write_json

RESULT = Path(__file__).parent / "results" / "first_try.json"
MODELS = ("meta_teacher", "student", "fine_tuned_shared", "tfidf")


def cut_down(path: Path, rows: int, folder: Path) -> Path:
    """The corpus with `rows` rows of train of each label, drawn by seed 0."""
    data, by_label = load_dataset(path), defaultdict(list)
    for example in data.train:
        by_label[example.label].append(example)
    draw = random.Random(0)
    data.splits["train"] = [
        e for _, members in sorted(by_label.items()) for e in draw.sample(members, min(rows, len(members)))
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for split, examples in data.splits.items():
        kept = [{"text": e.text, "text_pair": e.text_pair, "label": e.label, "domain": e.domain} for e in examples]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    return folder


def first_try(data: Path, output: Path, options: list[str]) -> dict[str, Any]:
    """The figures of one run; if it was refused, the message."""
    command = [sys.executable, "-m", "metakd", "run", "--data", str(data), "--output", str(output), *options]
    started = time.monotonic()
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    minutes = round((time.monotonic() - started) / 60, 1)
    if ended.returncode:
        return {"minutes": minutes, "refused": ended.stderr[-1000:].replace(str(data), data.name)}
    results = json.loads((output / "results.json").read_text(encoding="utf-8"))
    settings, defaults = results["run"]["settings"], Settings().model_dump(mode="json")
    changed = ("batch_size", "teacher_learning_rate", "teacher_epochs", "shared_epochs")
    counts = json.loads((output / "corpus.json").read_text(encoding="utf-8"))["rows"]
    return {
        "minutes": minutes,
        "options": options,
        "split": results["split"],
        "rows": {split: sum(sum(n.values()) for n in domains.values()) for split, domains in counts.items()},
        "labels": len(results["run"]["labels"]),
        "domains": len(results["run"]["domains"]),
        "accuracy": {name: results["average"][name]["accuracy"] for name in MODELS if name in results["average"]},
        "intervals": {n: results["average"][n]["accuracy_interval"] for n in MODELS if n in results["average"]},
        "changed": {name: settings[name] for name in changed if settings[name] != defaults[name]},
        "seconds": results["seconds"],
        "environment": results["environment"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", nargs="+", metavar="NAME=PATH")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--options", default="", help="Further options of `metakd run`.")
    options = parser.parse_args()
    for corpus in options.corpora:
        name, _, place = corpus.partition("=")
        data = Path(place)
        if options.rows is not None:
            data = cut_down(data, options.rows, options.work / f"{name}-data")
        result = first_try(data, options.work / name, shlex.split(options.options))
        print(name, json.dumps({key: result.get(key) for key in ("minutes", "accuracy", "refused")}), flush=True)
        known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
        write_json(RESULT, {**known, name: result})


if __name__ == "__main__":
    main()
