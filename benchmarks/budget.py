"""What deployment makes of students: size, latency and accuracy beside the teacher, and the rate of `metakd predict`.

    python benchmarks/budget.py --data DIR --work FOLDER [--layers 3,2,1]

DIR holds the Multi-Domain Sentiment Dataset (train and dev); its rows are cut anew, 60/10/30, and all scores are on the
30. The teacher and the students lie in FOLDER, which may be one of `metakd experiment`, and are trained if they are
missing. All models are timed in turn, round by round, one text at a time with tokenising, on as many threads; medians
over rounds of the medians of a round. Writes benchmarks/results/budget.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metakd import Settings
from metakd.answers import shipped_bytes
from metakd.artifacts import environment, write_json
from metakd.distillation import distill_all
from metakd.domains import MultiDomainDataset, load_dataset, of_domain
from metakd.export import accuracy, folder_bytes, ship, time_of
from metakd.inference import Model
from metakd.onnx_model import BATCH, OnnxModel
from metakd.pipeline import teach, weigh
from metakd.runs import Run
from metakd.torch_model import TorchModel

RESULT = Path(__file__).parent / "results" / "budget.json"
DISTILLED = {"windows": 2, "shared_epochs": 5, "shared_learning_rate": 4e-4}
FORMS: dict[str, dict[str, bool]] = {
    "ONNX float32": {},
    "ONNX int8": {"int8": True},
    "ONNX int8, cut table": {"int8": True, "cut": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--layers", default="3,2,1")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--texts", type=int, default=100_000, help="that `metakd predict` labels")
    asked = parser.parse_args()
    data = load_dataset(asked.data, 0).cut_anew(10, 30)
    with tempfile.TemporaryDirectory() as name:
        lines = _models(data, asked.work, [int(n) for n in asked.layers.split(",")], Path(name))
        models = [line.pop("model") for line in lines]
        for line, milliseconds in zip(lines, _in_turn(models, data.splits["dev"], asked.rounds), strict=True):
            line["ms"] = milliseconds
        smallest = Path(name) / f"layers={asked.layers.split(',')[0]}-{[*FORMS][-1]}-{data.domains[0]}"
        rate = _rate(smallest, data, asked.texts, Path(name))
    settings = Settings(**DISTILLED).model_dump(mode="json")
    write_json(
        RESULT,
        {"rows": lines, "predict": rate, "settings": settings, "examples": len(data.splits["test"])}
        | {"threads": torch.get_num_threads(), "rounds": asked.rounds, "environment": environment()},
    )
    _print(lines, rate)


def _models(data: MultiDomainDataset, work: Path, layers: list[int], place: Path) -> list[dict[str, Any]]:
    """A line for the teacher and one for each kind of student, in each form, with a model of it to time."""
    always = {"seed": 0, "rival": False, "keep_cache": True, "allow_weak_teacher": True, "track": "none"}
    runs = [
        Run(work, Settings.build(DISTILLED | always | {"student": f"layers={n}"}), data, by_content=True)
        for n in layers
    ]
    weigh(runs[0])
    fleets = {"teacher": dict.fromkeys(data.domains, teach(runs[0]))}
    for run in runs:
        students = distill_all(run, data.domains, ["meta_kd"])
        fleets[run.settings.student] = dict(zip(data.domains, students, strict=True))
    lines = []
    for name, fleet in fleets.items():
        lines.append(_line(name, "PyTorch float32", {d: TorchModel.load(f) for d, f in fleet.items()}, data))
        lines[-1]["MB"] = round(float(np.mean([shipped_bytes(f) for f in fleet.values()])) / 1e6, 2)
        for form, how in FORMS.items():
            if name == "teacher" and "cut" in how:
                continue
            folders = {d: place / f"{name}-{form}-{d}" for d in fleet}
            for domain, folder in folders.items():
                own = of_domain(data.train, domain) if how.get("cut") else None
                ship(
                    TorchModel.load(fleet[domain]),
                    folder,
                    data.splits["dev"],
                    128,
                    int8=how.get("int8", False),
                    own=own,
                )
            loaded = {d: OnnxModel.load(f, torch.get_num_threads()) for d, f in folders.items()}
            lines.append(_line(name, form, loaded, data))
            lines[-1]["MB"] = round(float(np.mean([folder_bytes(f) for f in folders.values()])) / 1e6, 2)
    return lines


def _line(name: str, form: str, fleet: dict[str, Any], data: MultiDomainDataset) -> dict[str, Any]:
    scores = {d: accuracy(model, of_domain(data.splits["test"], d), data.labels) for d, model in fleet.items()}
    print(name, form, {d: round(100 * s, 1) for d, s in scores.items()}, flush=True)
    return {
        "model": next(iter(fleet.values())),
        "name": name,
        "form": form,
        "accuracy": round(float(np.mean([*scores.values()])), 4),
        "domains": {domain: round(score, 4) for domain, score in scores.items()},
    }


def _in_turn(models: list[Model], examples: Any, rounds: int) -> list[float]:
    """The median of one text, of each model."""
    found: list[list[float]] = [[] for _ in models]
    for place in range(rounds):
        order = range(len(models)) if place % 2 else reversed(range(len(models)))
        for i in order:
            found[i].append(time_of(models[i], examples)["median"])
    return [round(float(np.median(own)), 3) for own in found]


def _rate(folder: Path, data: MultiDomainDataset, count: int, place: Path) -> dict[str, Any]:
    """Texts a second of `metakd predict` and of ONNX Runtime alone on the same batches; memory for more texts."""
    texts = [e.text for rows in data.splits.values() for e in rows]
    found: dict[str, Any] = {"texts": count}
    for rows in (count // 10, count):
        source = place / f"{rows}.jsonl"
        with source.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"id": str(i), "text": texts[i % len(texts)]}) + "\n" for i in range(rows))
        command = ["metakd", "predict", folder, "--input", source, "--output", place / "out.jsonl"]
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", *map(str, command)], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # of the largest so far
        found[f"predict_{rows}"] = {"texts_a_second": round(rows / seconds, 1), "peak_memory_bytes": peak}
    model = OnnxModel.load(folder, torch.get_num_threads())
    encoded = sorted(model.tokenizer.encode_batch_fast(texts), key=lambda encoding: len(encoding.ids))
    batches = [model._batch(encoded[i : i + BATCH]) for i in range(0, len(encoded), BATCH)]
    started = time.perf_counter()
    for batch in batches:
        model.session.run(None, batch)
    found["runtime_alone_texts_a_second"] = round(len(texts) / (time.perf_counter() - started), 1)
    found["share"] = round(found[f"predict_{count}"]["texts_a_second"] / found["runtime_alone_texts_a_second"], 3)
    return found


def _print(lines: list[dict[str, Any]], rate: dict[str, Any]) -> None:
    teacher = lines[0]
    print("| model | form | accuracy | MB | ms | smaller | faster |\n|---|---|---:|---:|---:|---:|---:|")
    for line in lines:
        ratios = f"{teacher['MB'] / line['MB']:.1f} | {teacher['ms'] / line['ms']:.1f}"
        score = f"{100 * line['accuracy']:.1f}"
        print(f"| {line['name']} | {line['form']} | {score} | {line['MB']} | {line['ms']:.2f} | {ratios} |")
    print(rate)


if __name__ == "__main__":
    main()
