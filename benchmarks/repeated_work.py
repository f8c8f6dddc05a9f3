"""Work that a run repeats, beside an earlier commit: batches, look-ups, cache reads, tokens, checks of saved models.

    git worktree add ../earlier da62ef4
    python benchmarks/repeated_work.py --before ../earlier [--times 3] [--parts "run, meta_kd" ...]

Commits alternate, each part in a process of its own, with the libraries of this Python; medians are compared.

- `batches`: an epoch's batches of 32 texts over 200 domains, each batch with all of them (and without regard to them).
- `labels`: a pass of `Features.encode` over made-up texts of 10,000 labels and 200 domains, and a second pass over the
  same. The earlier commit gets 100,000 rows; its figures for a million are ten times that, as `scaled_from` says.
- `cache`: reading a batch of 32 texts of 60 to 128 tokens with seven matrices a token of width 384 or 768 (twice that
  for attention) in bfloat16, beside a plain copy of what was read. The files are in the system's memory.
- `run`: a run of 8 domains (train 400, dev 4,000, test 200 texts, a tenth of them long) with an encoder of one layer:
  how often it tokenises a text of each split (calls with one text are left out, they time a model), and the seconds
  of processor time of its checks of saved models.

Adds to benchmarks/results/repeated_work.json.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase
from weighing import WORDS, make_encoder

from metakd import Run, Settings
from metakd.data.dataset import MultiDomainDataset
from metakd.data.samplers import LengthBatches
from metakd.data.schema import Example
from metakd.data.tokenization import Batch
from metakd.models.meta_teacher import TeacherLayers, TeacherOutputs
from metakd.pipeline import distill, teach
from metakd.pipeline.run_all import run_all
from metakd.training.teacher_cache import TeacherCache
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import allocator_tuned, environment

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "repeated_work.json"
BATCH, DOMAINS, LABELS = 32, 200, 10_000
FEW, MANY = 100_000, 1_000_000
ENCODERS = {"minilm": (384, (2, 4, 6)), "12x768": (768, (4, 8, 12))}  # width, layers that a student matches

Figures = dict[str, float]


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def batches(rows: int) -> Figures:
    draw = np.random.default_rng(0)
    lengths, domains = draw.integers(5, 129, rows), (DOMAINS * draw.random(rows) ** 2).astype(int)
    balanced, mixed = LengthBatches(lengths, BATCH, 0, domains), LengthBatches(lengths, BATCH, 0)
    return {"balanced_seconds": seconds(lambda: [*balanced]), "mixed_seconds": seconds(lambda: [*mixed])}


def labels(rows: int) -> Figures:
    names, domains = [f"{i:05d}" for i in range(LABELS)], [f"{i:03d}" for i in range(DOMAINS)]
    train = [Example(str(i), f"text {i}", None, names[i * 7 % LABELS], domains[i % DOMAINS]) for i in range(rows)]
    data = MultiDomainDataset("many labels", None, {"train": train}, names, domains)
    features = Run(Path("nowhere"), Settings(windows=0), data).features
    passes = [seconds(lambda: features.encode(train)) for _ in range(2)]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    return {"first_pass_seconds": passes[0], "second_pass_seconds": passes[1], "resident_bytes": memory}


def cache(encoder: str) -> Figures:
    """Medians of the second of two epochs."""
    rows, (width, matched) = 1200, ENCODERS[encoder]
    lengths = np.sort(np.random.default_rng(0).integers(60, 129, rows))
    layers, heads = TeacherLayers((0, *matched), matched), 12

    def outputs() -> Iterator[tuple[list[int], Batch, TeacherOutputs]]:
        for start in range(0, rows, 64):
            part = torch.from_numpy(lengths[start : start + 64])
            shape = len(part), int(part.max())
            states = {layer: torch.randn(*shape, width) for layer in layers.hidden}
            factors = {layer: torch.randn(shape[0], heads, shape[1], 2 * width // heads) for layer in layers.attention}
            real = (torch.arange(shape[1]) < part[:, None]).long()
            vectors = torch.randn(shape[0], 2), torch.randn(shape[0], width)
            batch_rows = [*range(start, start + len(part))]
            yield batch_rows, {"attention_mask": real}, TeacherOutputs(*vectors, states, factors)

    with tempfile.TemporaryDirectory() as folder, allocator_tuned():
        all_fit = np.ones(rows, dtype=bool)
        TeacherCache.write(Path(folder), [str(i) for i in range(rows)], outputs(), layers, all_fit, "bfloat16")
        teacher, order = TeacherCache(Path(folder), layers), LengthBatches(lengths, BATCH, 0)
        read, copied = list[float](), list[float]()
        for batch in [torch.tensor(rows_of_batch) for _ in range(2) for rows_of_batch in order]:
            started = time.perf_counter()
            result = teacher.read(batch, layers)
            read.append(time.perf_counter() - started)
            layers_read = [*result.hidden_states.values(), *result.attention_factors.values()]
            copied.append(seconds(lambda tensors=layers_read: [tensor.clone() for tensor in tensors]))
    both = {"read": read, "plain_copy": copied}
    return {f"{name}_milliseconds": 1000 * median(times[-len(order) :]) for name, times in both.items()}


def write_data(folder: Path) -> dict[str, int]:
    """Texts of each split, every tenth of them long; each begins with its split."""
    draw, counts = random.Random(0), {"train": 400, "dev": 4000, "test": 200}
    for split, count in counts.items():
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for i in range(count):
                text = f"{split} {i} {' '.join(draw.choices(WORDS, k=200 if i % 10 == 0 else draw.randint(8, 16)))}"
                file.write(json.dumps({"text": text, "label": f"{i // 8 % 2}", "domain": f"domain {i % 8}"}) + "\n")
    return counts


def run(method: str) -> Figures:
    tokenised, checks = Counter[str](), list[float]()
    call, check = PreTrainedTokenizerBase.__call__, distill.check_reloaded

    def counted(self: Any, texts: Any, *rest: Any, **options: Any) -> Any:
        if not isinstance(texts, str) and len(texts) > 1:
            tokenised.update(text.partition(" ")[0] for text in texts)
        return call(self, texts, *rest, **options)

    def timed(*arguments: Any) -> Any:
        started = time.process_time()
        result = check(*arguments)
        checks.append(time.process_time() - started)
        return result

    PreTrainedTokenizerBase.__call__ = counted
    distill.check_reloaded = teach.check_reloaded = timed
    with tempfile.TemporaryDirectory() as folder:
        base, data = make_encoder(Path(folder) / "base"), Path(folder) / "data"
        data.mkdir()
        counts = write_data(data)
        settings = Settings(base=str(base), student="layers=1", method=method, allow_weak_teacher=True, track="none")
        run_all(Run.assemble(Path(folder) / "run", settings, data).begin())
    times = {f"times_each_{split}_text_is_tokenised": tokenised[split] / count for split, count in counts.items()}
    return times | {"checks_of_saved_models": len(checks), "check_processor_seconds": sum(checks)}


PARTS: dict[str, Callable[[], Figures]] = {
    **{f"batches, {rows:,} rows": lambda rows=rows: batches(rows) for rows in (FEW, MANY)},
    **{f"labels, {rows:,} rows": lambda rows=rows: labels(rows) for rows in (FEW, MANY)},
    **{f"cache, {name}": lambda name=name: cache(name) for name in ENCODERS},
    **{f"run, {method}": lambda method=method: run(method) for method in ("meta_kd", "cross_domain")},
}


def measure(part: str, source: Path) -> Figures:
    """The figures of a part with the metakd in `source`."""
    command = [sys.executable, __file__, "--only", part]
    path = {"PYTHONPATH": str(source / "src")}
    done = subprocess.run(command, check=True, env=os.environ | path, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(part: str, before: Path, times: int) -> dict[str, Any]:
    """Medians of both commits; of the earlier one's labels at a million rows, ten times those of 100,000."""
    scaled = part == f"labels, {MANY:,} rows"
    figures: dict[str, list[Figures]] = {"before": [], "now": []}
    for _ in range(times):
        figures["before"].append(measure(f"labels, {FEW:,} rows" if scaled else part, before))
        figures["now"].append(measure(part, ROOT))
    result: dict[str, Any] = {
        name: {key: median(each[key] for each in runs) for key in runs[0]} for name, runs in figures.items()
    }
    if scaled:
        before_scaled = {key: value * MANY / FEW for key, value in result["before"].items() if "seconds" in key}
        result["before"] = before_scaled | {"scaled_from": FEW}
    return result | {"single": figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="A checkout of the earlier commit.")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--only", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(PARTS[options.only]()))
        return
    if options.before is None:
        parser.error("--before: name a checkout of the earlier commit")
    results: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    for part in options.parts:
        results[part] = compare(part, options.before.resolve(), options.times) | {"environment": environment()}
        write_json(RESULT, results)
        print(part, json.dumps({name: results[part][name] for name in ("before", "now")}), flush=True)


if __name__ == "__main__":
    main()
