"""What deployment makes of students: size, latency and accuracy beside the teacher, and the rate of `metakd predict`.

    python benchmarks/budget.py --data DIR --work FOLDER [--layers 3,2,1]

DIR holds the Multi-Domain Sentiment Dataset (train and dev); its rows are cut 60/10/30, and all scores are on the 30.
The teacher and the students lie in FOLDER, which may be one of `metakd experiment`, and are trained if they are
missing. All models are timed in turn, round by round, one text at a time with tokenising, on as many threads; medians
over the texts of all rounds. `transformers` is the library's own tokenizer and model, without metakd. Training
has a process of its own, since it changes how the C library gives memory. The rate of ONNX Runtime alone is on tokens
that are there already: of its default session in batches of 8 to 64 texts of like length, or of the session that
metakd's exported models run, whichever is the quickest, before and after `metakd predict`. Writes
benchmarks/results/budget.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from metakd import Settings
from metakd.data.dataset import MultiDomainDataset, load_dataset
from metakd.data.schema import Example
from metakd.data.splits import of_domain
from metakd.evaluation.costs import measure_latencies, shipped_bytes
from metakd.export.exporter import accuracy, folder_bytes
from metakd.export.onnx_format import write_model
from metakd.inference.classifier import Classifier, Model
from metakd.inference.long_texts import Answers
from metakd.inference.onnx_backend import OnnxModel
from metakd.inference.torch_backend import TorchModel
from metakd.pipeline.distill import distill_all
from metakd.pipeline.teach import teach
from metakd.pipeline.weigh import weigh
from metakd.runs.run import Run
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import environment

RESULT = Path(__file__).parent / "results" / "budget.json"
DISTILLED = {"windows": 2, "crops": 4, "shared_epochs": 4, "shared_learning_rate": 4e-4, "stages": "joint"}
LENGTH = 128
PREDICT = """
import sys
from metakd.cli.main import main
sys.argv.insert(1, "predict")
try:
    main()
finally:  # of this program alone: what the system counts for a child begins with its parent's
    print(next(row.split()[1] for row in open("/proc/self/status") if row.startswith("VmHWM")))
"""
FORMS = {  # int8 or not, the table compact or not
    "ONNX float32": (False, False),
    "ONNX int8": (True, False),
    "ONNX int8, compact table": (True, True),
}


class Transformers:
    """A fine-tuned classifier as its library runs it."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.network = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        self.labels = [self.network.config.id2label[i] for i in range(self.network.config.num_labels)]

    @torch.inference_mode()
    def answers(self, examples: Sequence[Example]) -> Answers:
        texts = [e.text for e in examples]
        batch = self.tokenizer(texts, truncation=True, max_length=LENGTH, padding=True, return_tensors="pt")
        return Answers(self.network(**batch).logits.softmax(-1).numpy(), {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--layers", default="3,2,1")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--texts", type=int, default=100_000, help="that `metakd predict` labels")
    options = parser.parse_args()
    layers = [int(n) for n in options.layers.split(",")]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        fleets = apart.submit(_trained, options.data, options.work, layers).result()
    data = _cut(options.data)
    with tempfile.TemporaryDirectory() as name:
        rows = [row for kind, fleet in fleets.items() for row in _rows_of(kind, fleet, data, Path(name))]
        models = [row.pop("model") for row in rows]
        for row, milliseconds in zip(rows, _in_turn(models, data.splits["dev"], options.rounds), strict=True):
            row["ms"] = milliseconds
        rate = _rate(models[-1].path.parent, data, options.texts, Path(name))
    results = {
        "rows": rows,
        "accepted": _accepted(rows),
        "predict": {"model": rows[-1]["name"]} | rate,
        "settings": Settings(**DISTILLED).model_dump(mode="json"),
        "examples": len(data.splits["test"]),
        "threads": torch.get_num_threads(),
        "rounds": options.rounds,
        "environment": environment(),
    }
    write_json(RESULT, results)
    print(table(results), results["predict"], sep="\n\n")


def _cut(data: str) -> MultiDomainDataset:
    return load_dataset(data, 0).resplit(10, 30)


def _trained(source: str, work: Path, layers: list[int]) -> dict[str, dict[str, Path]]:
    """Folders by domain of the teacher and of each kind of student, what is missing being trained."""
    data = _cut(source)
    always = {"seed": 0, "baseline": False, "keep_cache": True, "allow_weak_teacher": True, "track": "none"}
    runs = [
        Run(work, Settings.build(DISTILLED | always | {"student": f"layers={n}"}), data, by_content=True)
        for n in layers
    ]
    weigh(runs[0])
    fleets = {"teacher": dict.fromkeys(data.domains, teach(runs[0]))}
    for run in reversed(runs):  # so that the first of `layers` is the last
        students = distill_all(run, data.domains, ["meta_kd"])
        fleets[run.settings.student] = dict(zip(data.domains, students, strict=True))
    return fleets


def _rows_of(name: str, fleet: dict[str, Path], data: MultiDomainDataset, place: Path) -> list[dict[str, Any]]:
    """A row for each form of one kind of model (one a domain, or one for all), with the model to be timed."""
    bare = {folder: Transformers(folder) for folder in set(fleet.values())}
    rows = [_row(name, "transformers", {d: bare[folder] for d, folder in fleet.items()}, data)]
    rows[0]["MB"] = round(float(np.mean([shipped_bytes(f) for f in fleet.values()])) / 1e6, 2)
    for form, (int8, compact) in FORMS.items():
        if compact and len(bare) == 1:  # a table for one domain, in a model for all
            continue
        made: dict[Path, OnnxModel] = {}
        for domain, folder in fleet.items():
            if folder not in made:
                target = place / f"{name}-{form}-{domain}"
                texts = of_domain(data.train, domain) if compact else None
                model, dev = TorchModel.load(folder, "cpu"), data.splits["dev"]
                write_model(model, target, dev, int8=int8, domain_examples=texts)
                made[folder] = OnnxModel.load(target, torch.get_num_threads())
        rows.append(_row(name, form, {d: made[folder] for d, folder in fleet.items()}, data))
        sizes = [folder_bytes(model.path.parents[1]) for model in made.values()]
        rows[-1]["MB"] = round(float(np.mean(sizes)) / 1e6, 2)
    return rows


def _row(name: str, form: str, fleet: dict[str, Any], data: MultiDomainDataset) -> dict[str, Any]:
    scores = {d: accuracy(model, of_domain(data.splits["test"], d), data.labels) for d, model in fleet.items()}
    print(name, form, {d: round(100 * s, 1) for d, s in scores.items()}, flush=True)
    return {
        "model": next(iter(fleet.values())),
        "name": name,
        "form": form,
        "accuracy": round(float(np.mean([*scores.values()])), 4),
        "domains": {domain: round(score, 4) for domain, score in scores.items()},
    }


def _accepted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each student in its smallest form beside the teacher, the teacher's int8 export, and itself uncompressed."""
    by_form = {(row["name"], row["form"]): row for row in rows}
    teacher, exported, int8 = (by_form["teacher", form] for form in ("transformers", "ONNX float32", "ONNX int8"))
    return [
        {
            "name": row["name"],
            "times_smaller": round(teacher["MB"] / row["MB"], 2),
            "times_faster": round(teacher["ms"] / row["ms"], 2),
            "times_faster_than_exported_teacher": round(exported["ms"] / row["ms"], 2),
            "times_faster_than_int8_teacher": round(int8["ms"] / row["ms"], 2),
            "points_from_teacher": round(100 * (row["accuracy"] - teacher["accuracy"]), 2),
            "points_from_itself": round(100 * (row["accuracy"] - by_form[row["name"], "transformers"]["accuracy"]), 2),
        }
        for row in rows
        if row["form"] == [*FORMS][-1]
    ]


def _in_turn(models: list[Model], examples: Any, rounds: int) -> list[float]:
    """The median milliseconds of one text, of each model."""
    contenders = {str(i): Classifier(model).predict_examples for i, model in enumerate(models)}
    timed = [measure_latencies(contenders, examples, seed=0) for _ in range(rounds)]
    return [round(float(np.median([latencies[name].milliseconds for latencies in timed])), 3) for name in contenders]


def _rate(folder: Path, data: MultiDomainDataset, count: int, place: Path) -> dict[str, Any]:
    """Texts a second of `metakd predict` and of ONNX Runtime alone; memory for more texts."""
    texts = [e.text for rows in data.splits.values() for e in rows]
    rate: dict[str, Any] = {"texts": count}
    alone = [_alone(folder, texts)]
    for rows in (count // 10, count):
        source = place / f"{rows}.jsonl"
        with source.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"id": str(i), "text": texts[i % len(texts)]}) + "\n" for i in range(rows))
        command = [sys.executable, "-c", PREDICT, folder, "--input", source, "--output", place / "out.jsonl"]
        started = time.perf_counter()
        printed = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True).stdout
        seconds = time.perf_counter() - started
        peak = 1024 * int(printed.split()[-1])
        rate[f"predict_{rows}"] = {"texts_a_second": round(rows / seconds, 1), "peak_memory_bytes": peak}
    rate["runtime_alone"] = [*alone, _alone(folder, texts)]
    best = max(max(speeds.values()) for speeds in rate["runtime_alone"])
    rate["share"] = round(rate[f"predict_{count}"]["texts_a_second"] / best, 3)
    return rate


def _alone(folder: Path, texts: list[str]) -> dict[str, float]:
    """Texts a second of ONNX Runtime, tokens ready and sorted by length, by session and batch size."""
    model = OnnxModel.load(folder)
    encoded = sorted(model.tokenizer.encode_batch_fast(texts), key=lambda encoding: len(encoding.ids))
    ways: dict[str, Callable[[], Any]] = {"metakd's session": lambda: model.of_tokens(encoded)}
    session = onnxruntime.InferenceSession(model.path, providers=["CPUExecutionProvider"])
    for size in (8, 16, 32, 64):
        batches = [model._padded(encoded[i : i + size]) for i in range(0, len(encoded), size)]
        ways[f"default session, {size}"] = lambda batches=batches: [session.run(None, batch) for batch in batches]  # type: ignore[misc]
    speeds = {}
    for name, run in ways.items():
        started = time.perf_counter()
        run()
        speeds[name] = round(len(texts) / (time.perf_counter() - started), 1)
    return speeds


def table(results: dict[str, Any]) -> str:
    """The rows of docs/howto/deploy.md."""
    rows = [
        "| model | form | accuracy | MB | ms | smaller | faster |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    teacher = results["rows"][0]
    for row in results["rows"]:
        ratios = f"{teacher['MB'] / row['MB']:.1f} | {teacher['ms'] / row['ms']:.1f}"
        form = "PyTorch float32" if row["form"] == "transformers" else row["form"]
        score = f"{100 * row['accuracy']:.1f}"
        rows.append(f"| {row['name']} | {form} | {score} | {row['MB']:.1f} | {row['ms']:.1f} | {ratios} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
