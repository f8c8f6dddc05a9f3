"""What deployment makes of students: size, latency and accuracy beside the teacher, and the rate of `metakd predict`.

    python benchmarks/budget.py --data DIR --work FOLDER [--layers 3,2,1] [--seeds 0,1,2] [--precision bfloat16]

DIR holds the Multi-Domain Sentiment Dataset (train and dev); its rows are cut 60/10/30, and all scores are on the 30.
The teachers (tried once) and the students, by the defaults, lie in FOLDER, which may be one of `metakd experiment`, and
are trained if they are missing. All models read whole texts; students are calibrated on dev. Of the first seed, the
teacher and students of one domain are timed in turn on that domain's dev, one text at a time with tokenising, on as
many threads: medians over texts, each by its shortest time of all rounds, since other work can only lengthen it.
--only-times measures these again, and is for models and files that are the same. Training has a process of its own,
since it changes how the C library gives memory. The rate of ONNX Runtime alone is on tokens of all windows that are
there already: of its default session in batches of 8 to 64 windows of like length, or of the session that metakd's
exported models run, whichever is the quickest, before and after `metakd predict`. Writes
benchmarks/results/budget.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from metakd import Settings
from metakd.data.dataset import MultiDomainDataset, load_dataset
from metakd.data.schema import Example
from metakd.data.splits import of_domain
from metakd.data.windows import following_windows
from metakd.evaluation.calibration import quality
from metakd.evaluation.costs import Latency, measure_latencies, shipped_bytes
from metakd.evaluation.statistics import difference, points
from metakd.experiments.trial import FIXED_SETTINGS
from metakd.export.exporter import folder_bytes
from metakd.export.onnx_format import write_model
from metakd.inference.classifier import Classifier
from metakd.inference.long_texts import Model
from metakd.inference.onnx_backend import OnnxModel
from metakd.inference.torch_backend import TorchModel
from metakd.pipeline.distill import distill_all
from metakd.pipeline.readings import write_readings, write_temperatures
from metakd.pipeline.teach import teach
from metakd.pipeline.teacher_outputs import drop_teacher_cache
from metakd.pipeline.weigh import weigh
from metakd.runs.run import Run
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import environment

RESULT = Path(__file__).parent / "results" / "budget.json"
TEACHER, TRAINED = "teacher", "PyTorch float32"
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
Fleet = dict[str, Path]  # each domain's model


@dataclass
class Measured:
    """One kind of model in one form."""

    model: Model | None = None  # one of the first seed, to be timed
    sizes: list[float] = field(default_factory=list)  # MB
    rights: dict[str, list[NDArray[np.bool_]]] = field(default_factory=lambda: defaultdict(list))  # by domain, seeds
    errors: list[float] = field(default_factory=list)  # of calibration, by seed

    @property
    def right(self) -> dict[str, NDArray[np.bool_]]:
        """By domain: (S, N)."""
        return {domain: np.stack(seeds) for domain, seeds in self.rights.items()}

    @property
    def accuracies(self) -> list[float]:
        """By seed: the mean over domains."""
        return [float(x) for x in np.mean([seeds.mean(1) for seeds in self.right.values()], axis=0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--layers", default="3,2,1")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only-times", action="store_true", help="keep all else of the committed result")
    parser.add_argument("--texts", type=int, default=100_000, help="that `metakd predict` labels")
    options = parser.parse_args()
    layers, seeds = ([int(n) for n in numbers.split(",")] for numbers in (options.layers, options.seeds))
    seeds = seeds[:1] if options.only_times else seeds
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        train = [apart.submit(trained_fleets, options.data, options.work, layers, n, options.precision) for n in seeds]
        trained = [fleets.result() for fleets in train]
    data, measured = cut(options.data), defaultdict[tuple[str, str], Measured](Measured)
    if options.only_times:
        _time_again(trained[0], data, options.rounds)
        return
    with tempfile.TemporaryDirectory() as name:
        for seed, fleets in zip(seeds, trained, strict=True):
            for kind, fleet in fleets.items():
                for form, models, size in _forms(fleet, data, Path(name) / f"{seed}-{kind}"):
                    measured[kind, form].sizes.append(size)
                    _measure(measured[kind, form], models, data, seed)
                    print(seed, kind, form, round(100 * measured[kind, form].accuracies[-1], 1), flush=True)
        one_of_each = [each.model for each in measured.values() if each.model]
        times = _in_turn(one_of_each, data, options.rounds)
        smallest = Path(name) / f"{seeds[0]}-layers={layers[0]}" / [*FORMS][-1] / data.domains[0]
        rate = _rate(smallest, data, options.texts, Path(name))
    rows = [_row(*key, each, ms) for (key, each), ms in zip(measured.items(), times, strict=True)]
    results = {
        "rows": rows,
        "accepted": [_ratios(name, rows) | _losses(name, measured) for name in trained[0] if name != TEACHER],
        "predict": {"model": rows[-1]["name"]} | rate,
        "settings": Settings.build(FIXED_SETTINGS | {"precision": options.precision}).model_dump(mode="json"),
        "examples": len(data.splits["test"]),
        "seeds": seeds,
        "threads": torch.get_num_threads(),
        "rounds": options.rounds,
        "environment": environment(),
    }
    write_json(RESULT, results)
    print(table(results), results["accepted"], results["predict"], sep="\n\n")


def cut(data: str) -> MultiDomainDataset:
    return load_dataset(data, 0).resplit(10, 30)


def trained_fleets(source: str, work: Path, layers: list[int], seed: int, precision: str) -> dict[str, Fleet]:
    """The teacher and each kind of student, what is missing being trained."""
    data, changes = cut(source), FIXED_SETTINGS | {"seed": seed, "precision": precision}
    runs = [Run(work, Settings.build(changes | {"student": f"layers={n}"}), data, by_content=True) for n in layers]
    weigh(runs[0])
    fleets = {TEACHER: dict.fromkeys(data.domains, teach(runs[0]))}
    for run in reversed(runs):  # so that the first of `layers` is the last
        students = dict(zip(data.domains, distill_all(run, data.domains, ["meta_kd"]), strict=True))
        write_temperatures(run, students, {})
        write_readings(run, {TEACHER: fleets[TEACHER], "student": students}, {})
        fleets[run.settings.student] = students
        drop_teacher_cache(run)
    return fleets


def _forms(fleet: Fleet, data: MultiDomainDataset, place: Path) -> Iterator[tuple[str, dict[str, Model], float]]:
    """Each form of one kind of model (one a domain, or one for all), with its MB."""
    bare: dict[Path, Model] = {folder: TorchModel.load(folder, "cpu") for folder in set(fleet.values())}
    yield TRAINED, {domain: bare[folder] for domain, folder in fleet.items()}, _megabytes([*map(shipped_bytes, bare)])
    for form, (int8, compact) in FORMS.items():
        alone = len(bare) == 1  # in a model for all domains, no table is of one; students' float32 is as in PyTorch
        if compact if alone else not int8:
            continue
        made, sizes = dict[Path, Model](), list[int]()
        for domain, folder in fleet.items():
            if folder not in made:
                target = place / form / domain
                texts = of_domain(data.train, domain) if compact else None
                model, dev = TorchModel.load(folder, "cpu"), data.splits["dev"]
                write_model(model, target, dev, int8=int8, domain_examples=texts)
                made[folder] = OnnxModel.load(target, torch.get_num_threads())
                sizes.append(folder_bytes(target))
        yield form, {domain: made[folder] for domain, folder in fleet.items()}, _megabytes(sizes)


def _measure(row: Measured, models: dict[str, Model], data: MultiDomainDataset, seed: int) -> None:
    """Score one seed's models on test."""
    logs, truths = [], []
    for domain, model in models.items():
        examples = of_domain(data.splits["test"], domain)
        logs.append(np.log(model.answers(examples).probabilities.astype(np.float64)))
        truths.append(np.array([model.labels.index(e.label) for e in examples]))
        row.rights[domain].append(logs[-1].argmax(-1) == truths[-1])
    row.errors.append(quality(np.concatenate(logs), np.concatenate(truths), seed)["calibration_error"])
    row.model = row.model or next(iter(models.values()))


def _megabytes(sizes: list[int]) -> float:
    return float(np.mean(sizes)) / 1e6


def _row(name: str, form: str, measured: Measured, milliseconds: float) -> dict[str, Any]:
    return {
        "name": name,
        "form": form,
        "accuracy": round(float(np.mean(measured.accuracies)), 4),
        "seeds": [round(accuracy, 4) for accuracy in measured.accuracies],
        "domains": {domain: round(float(right.mean()), 4) for domain, right in measured.right.items()},
        "calibration_errors": measured.errors,
        "MB": round(float(np.mean(measured.sizes)), 2),
        "ms": milliseconds,
    }


def _time_again(fleets: dict[str, Fleet], data: MultiDomainDataset, rounds: int) -> None:
    """Replace the milliseconds of the committed result, and the ratios, by those of one seed's models now."""
    results = json.loads(RESULT.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as name:
        forms = {
            (kind, form): next(iter(models.values()))
            for kind, fleet in fleets.items()
            for form, models, _ in _forms(fleet, data, Path(name) / kind)
        }
        assert [(row["name"], row["form"]) for row in results["rows"]] == [*forms]
        times = _in_turn([*forms.values()], data, rounds)
    for row, ms in zip(results["rows"], times, strict=True):
        row["ms"] = ms
    results["accepted"] = [each | _ratios(each["name"], results["rows"]) for each in results["accepted"]]
    results |= {"rounds": rounds, "threads": torch.get_num_threads(), "environment_of_times": environment()}
    write_json(RESULT, results)
    print(table(results), results["accepted"], sep="\n\n")


def _ratios(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Size and time of students in their smallest form beside the teacher and its exports."""
    by_form = {(row["name"], row["form"]): row for row in rows}
    row, teacher = by_form[name, [*FORMS][-1]], by_form[TEACHER, TRAINED]
    exported, int8 = by_form[TEACHER, "ONNX float32"], by_form[TEACHER, "ONNX int8"]
    return {
        "name": name,
        "times_smaller": round(teacher["MB"] / row["MB"], 2),
        "times_faster": round(teacher["ms"] / row["ms"], 2),
        "times_faster_than_exported_teacher": round(exported["ms"] / row["ms"], 2),
        "times_faster_than_int8_teacher": round(int8["ms"] / row["ms"], 2),
    }


def _losses(name: str, measured: dict[tuple[str, str], Measured]) -> dict[str, Any]:
    """What students in their smallest form lose to the teacher, to its int8 export, and to themselves uncompressed."""
    others = {"teacher": (TEACHER, TRAINED), "int8_teacher": (TEACHER, "ONNX int8"), "itself": (name, TRAINED)}
    smallest = measured[name, [*FORMS][-1]].right
    losses = {of: difference(smallest, measured[key].right) for of, key in others.items()}
    return {
        **{f"points_from_{of}": round(100 * each.mean, 2) for of, each in losses.items()},
        "intervals": {of: points(each.as_dict()) for of, each in losses.items()},
    }


def _in_turn(models: list[Model], data: MultiDomainDataset, rounds: int) -> list[float]:
    """The median milliseconds of one text, of each model."""
    contenders = {str(i): Classifier(model).predict_examples for i, model in enumerate(models)}
    latencies = least_latencies(contenders, of_domain(data.splits["dev"], data.domains[0]), rounds)
    return [latencies[name].summary()["median"] for name in contenders]


def least_latencies(
    contenders: dict[str, Callable[..., Any]], examples: list[Example], rounds: int
) -> dict[str, Latency]:
    """Each text's shortest time of some rounds, in each of which all contenders are timed in turn."""
    timed = [measure_latencies(contenders, examples, seed=0) for _ in range(rounds)]
    least = {name: np.min([latencies[name].milliseconds for latencies in timed], axis=0) for name in contenders}
    busy = all(latency.busy for latencies in timed for latency in latencies.values())
    return {name: replace(timed[0][name], milliseconds=least[name], busy=busy) for name in contenders}


def _rate(folder: Path, data: MultiDomainDataset, count: int, place: Path) -> dict[str, Any]:
    """Texts a second of `metakd predict` and of ONNX Runtime alone; memory for more texts."""
    texts = [e.text for rows in data.splits.values() for e in rows]
    rate: dict[str, Any] = {"texts": count}
    alone = [_alone(folder, texts)]
    for rows in (count // 10, count):
        source = place / f"{rows}.jsonl"
        with source.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"id": str(i), "text": texts[i % len(texts)]}) + "\n" for i in range(rows))
        command = [sys.executable, "-c", PREDICT, folder, "--input", source, "--output", place / f"{rows}.out.jsonl"]
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
    """Texts a second of ONNX Runtime, windows' tokens ready and sorted by length, by session and batch size."""
    model = OnnxModel.load(folder)
    others = following_windows(model.untruncated, texts, model.reading)
    windows = [window for rest in others for window in rest[: model.reading.most_windows - 1]]
    encoded = sorted([*model.tokenizer.encode_batch_fast(texts), *windows], key=lambda encoding: len(encoding.ids))
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
        score = f"{100 * row['accuracy']:.1f}"
        rows.append(f"| {row['name']} | {row['form']} | {score} | {row['MB']:.1f} | {row['ms']:.1f} | {ratios} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
