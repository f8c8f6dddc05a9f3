"""What a run takes as rows and domains grow, step by step: processor seconds and memory.

    python benchmarks/scaling.py [--domains 25 50 100 200] [--widths 64 128 256]

Of K domains the smallest has 1 row and the largest 10,000, each larger than the one before by the same factor, so that
twice the domains have twice the rows, and a step that goes over all rows for each domain takes four times as long. The
texts are drawn words, the encoder is tiny and random: what is measured is the work around the models. A second series
has one size of data and wider encoders. Each measurement is a process of its own with one thread; its seconds are
those that it computed for, so that other work beside it counts little, and its memory is what it holds by itself
(mapped files are not counted). Writes benchmarks/results/scaling.json after each of them, and goes on after those that
are in it.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "scaling.json"
LARGEST = 10_000  # rows of the largest domain
WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "nrst"]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
BEYOND = {"rows": 1_000_000, "domains": 1_000}  # that the fit is computed for
SIZE_OF_DATA = 8  # domains while encoders grow
STEPS = ("read", "weigh", "teach", "distill", "evaluate", "report")


def make_rows(folder: Path, domains: int, largest: int) -> int:
    """Training rows and a twentieth of them, but one at least, for scoring; how many the former are."""
    draw, total = random.Random(0), 0
    with (folder / "train.jsonl").open("w") as train, (folder / "test.jsonl").open("w") as test:
        for place in range(domains):
            rows = round(largest ** (place / (domains - 1)))
            total += rows
            for i in range(rows + max(1, rows // 20)):
                words = " ".join(draw.choices(WORDS, k=draw.randint(3, 9)))
                row = {"text": f"{words} {WORDS[i % 2]}", "label": str(i % 2), "domain": f"domain {place}"}
                (train if i < rows else test).write(json.dumps(row) + "\n")
    return total


def make_encoder(folder: Path, width: int, layers: int) -> int:
    """A random encoder of words and its tokenizer; its parameters."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = [*SPECIALS, *WORDS]
    backend = Tokenizer(WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    places = [(name, words.index(name)) for name in ("[CLS]", "[SEP]")]
    backend.post_processor = TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", places)
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)
    heads = {"num_attention_heads": 4, "num_hidden_layers": layers, "intermediate_size": 4 * width}
    model = BertModel(BertConfig(vocab_size=len(words), hidden_size=width, max_position_embeddings=32, **heads))
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


class Watch(threading.Thread):
    """The most memory that this process holds by itself, looked at twenty times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0
        self.start()

    def run(self) -> None:
        while True:
            status = Path("/proc/self/status").read_text()
            held = next(row for row in status.splitlines() if row.startswith("RssAnon"))
            self.most = max(self.most, int(held.split()[1]) * 1024)
            time.sleep(0.05)


def measure(domains: int, largest: int, width: int, layers: int) -> dict[str, Any]:
    """All steps of one run, in this process."""
    import torch

    from metakd import Run, Settings
    from metakd.cli import report
    from metakd.cli.assembly import load_library
    from metakd.pipeline.distill import distill_all
    from metakd.pipeline.evaluate import evaluate
    from metakd.pipeline.teach import teach
    from metakd.pipeline.weigh import weigh

    load_library()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"domains": domains, "steps": {}}
    watch = Watch()

    def timed(name: str, step: Callable[[], Any]) -> Any:
        watch.most, began, wall = 0, time.process_time(), time.perf_counter()
        output = step()
        seconds = {"seconds": time.process_time() - began, "wall_seconds": time.perf_counter() - wall}
        result["steps"][name] = {key: round(value, 2) for key, value in seconds.items()} | {"bytes": watch.most}
        return output

    with tempfile.TemporaryDirectory() as parent:
        base, data, folder = (Path(parent) / name for name in ("base", "data", "run"))
        data.mkdir()
        result["rows"], result["parameters"] = make_rows(data, domains, largest), make_encoder(base, width, layers)
        once = {"teacher_epochs": 1, "shared_epochs": 0, "predict_epochs": 1, "baseline": False, "track": "none"}
        small = {"base": str(base), "student": "layers=1", "max_length": 16, "batch_size": 64}
        free = {"allow_weak_teacher": True, "precision": "float32"}
        settings = Settings.build(once | small | free)
        run = timed("read", lambda: Run.assemble(folder, settings, str(data)).begin())
        timed("weigh", lambda: weigh(run))
        timed("teach", lambda: teach(run))
        timed("distill", lambda: distill_all(run, run.data.domains, run.methods))
        timed("evaluate", lambda: evaluate(run))
        timed("report", lambda: report.report_of(folder))
    return result


def fit(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """For each step, the line through the two largest sizes, how steep growth is there (1 is linear), and beyond."""
    small, large = measured[-2:]
    growth = {}
    for step in STEPS:
        growth[step] = {}
        for unit in ("seconds", "bytes"):
            a, b = (size["steps"][step][unit] for size in (small, large))
            slope = (b - a) / (large["rows"] - small["rows"])
            growth[step][unit] = {
                "exponent": round(math.log(b / a) / math.log(large["rows"] / small["rows"]), 2) if a and b else None,
                "a_row": slope,
                "beyond": round(b + slope * (BEYOND["rows"] - large["rows"]), 1),
            }
    return growth


def table(results: dict[str, Any]) -> str:
    """The rows of docs/scaling.md."""
    sizes = [f"{size['domains']} domains, {size['rows']:,} rows" for size in results["measured"]]
    rows = [
        f"| step | {' | '.join(sizes)} | exponent | {BEYOND['rows']:,} rows |",
        f"|---|{'---:|' * (len(sizes) + 2)}",
    ]
    for unit, scale, name in (("seconds", 1.0, "s"), ("bytes", 1e9, "GB")):
        for step in STEPS:
            row = [f"{size['steps'][step][unit] / scale:.{1 if scale == 1 else 2}f}" for size in results["measured"]]
            growth = results["fit"][step][unit]
            row += [f"{growth['exponent']}", f"{growth['beyond'] / scale:,.{0 if scale == 1 else 1}f}"]
            rows.append(f"| {step}, {name} | {' | '.join(row)} |")
    return "\n".join(rows)


def size_table(results: dict[str, Any]) -> str:
    """The other rows of docs/scaling.md: encoders that grow."""
    rows = ["| parameters | weigh, s | teach, s | distill, s | most GB |", "|---:|---:|---:|---:|---:|"]
    for size in results["sizes"]:
        steps = size["steps"]
        seconds = [f"{steps[step]['seconds']:.1f}" for step in ("weigh", "teach", "distill")]
        most = max(step["bytes"] for step in steps.values())
        rows.append(f"| {size['parameters']:,} | {' | '.join(seconds)} | {most / 1e9:.2f} |")
    return "\n".join(rows)


def measured_apart(job: tuple[int, ...]) -> dict[str, Any]:
    command, variables = [sys.executable, __file__, "--one", *map(str, job)], os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stdout.splitlines()[-1], flush=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domains", nargs="+", type=int, default=[25, 50, 100, 200])
    parser.add_argument("--widths", nargs="+", type=int, default=[64, 128, 256])
    parser.add_argument("--one", nargs=4, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one)))
        return
    from metakd.utils.artifacts import write_json
    from metakd.utils.hardware import environment

    series = {
        "measured": [(domains, LARGEST, 32, 2) for domains in options.domains],
        "sizes": [(SIZE_OF_DATA, 1_000, width, 4) for width in options.widths],
    }
    results: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.is_file() else {name: [] for name in series}
    for name, jobs in series.items():
        for job in jobs[len(results[name]) :]:
            results[name].append(measured_apart(job))
            fitted = {"fit": fit(results["measured"])} if len(results["measured"]) > 1 else {}
            write_json(RESULT, results | fitted | {"environment": environment()})
    results = json.loads(RESULT.read_text())
    print(table(results), size_table(results), sep="\n\n")


if __name__ == "__main__":
    main()
