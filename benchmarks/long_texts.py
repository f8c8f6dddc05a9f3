"""What it brings to read whole texts: accuracy and milliseconds of finished runs, by how their models read.

    python benchmarks/long_texts.py RUN [RUN ...] [--most-windows 8] [--output benchmarks/results/long_texts.json]

RUN are folders of runs of the same data and settings with other seeds; nothing is trained. Teacher and students read of
each text of dev the first window, all windows, windows until they are sure, or 256 and 512 tokens at once. The
threshold of adaptive reading is cross-fitted: chosen on one half of dev and used on the other, and the other way round.
Milliseconds are those of the teacher and of one student of the first run, one text at a time, in turns, on a sample of
dev that is stratified by length; `mean` is over its texts. Last, the seconds and memory of one text of up to 100,000
words, of which every window is read, or as many as the default allows.
"""

import argparse
import json
import resource
import time
from collections.abc import Mapping, Sequence
from itertools import cycle, islice, product
from pathlib import Path
from statistics import mean
from typing import Any

from metakd import Classifier, Run, Settings
from metakd.data.schema import Example
from metakd.data.splits import by_domain
from metakd.data.windows import Reading
from metakd.evaluation.costs import measure_latencies, timed_texts, windows_filled
from metakd.evaluation.long_texts import after_each_window, choose_enough
from metakd.evaluation.metrics import Predictions, score
from metakd.evaluation.predictions import predictions_of
from metakd.evaluation.tables import as_markdown
from metakd.inference.torch_backend import TorchModel
from metakd.utils.artifacts import read_run, write_json
from metakd.utils.hardware import environment

RESULT = Path(__file__).parent / "results" / "long_texts.json"
ADAPTIVE, DEFAULT = "adaptive", Settings.model_fields["most_windows"].default
WORDS = (100, 1_000, 5_000, 20_000, 100_000)
Fleet = Mapping[str, TorchModel]  # by domain


def readings(length: int, most_windows: int) -> dict[str, Reading]:
    return {
        "first": Reading(max_length=length),
        "mean": Reading(max_length=length, most_windows=most_windows),
        "256 at once": Reading(max_length=256),
        "512 at once": Reading(max_length=512),
    }


def scores(fleet: Fleet, rows: Mapping[str, list[Example]], labels: list[str], reading: Reading) -> dict[str, Any]:
    predictions = {}
    for domain, model in fleet.items():
        model.read_as(reading)
        predictions[domain] = predictions_of(rows[domain], labels, model)
    return _summary(predictions, labels)


def cross_fitted(fleet: Fleet, rows: Mapping[str, list[Example]], labels: list[str], whole: Reading) -> dict[str, Any]:
    """Scores where the threshold of each half of a domain's rows was chosen on the other halves."""
    halves = [{domain: of_domain[i::2] for domain, of_domain in rows.items()} for i in range(2)]
    enough, answers = [], [dict[str, Predictions](), dict[str, Predictions]()]
    for chosen_on in halves:
        steps = []
        for domain, model in fleet.items():
            model.read_as(whole)
            steps += after_each_window(model, chosen_on[domain])
        enough.append(choose_enough(steps))
    for half, threshold, predictions in zip(halves, reversed(enough), answers, strict=True):
        for domain, model in fleet.items():
            model.read_as(whole.model_copy(update={"enough": threshold}))
            predictions[domain] = predictions_of(half[domain], labels, model)
    both = [_summary(predictions, labels) for predictions in answers]
    return {name: mean(half[name] for half in both) for name in ("accuracy", "windows")} | {"enough": enough}


def _summary(predictions: Mapping[str, Predictions], labels: Sequence[str]) -> dict[str, Any]:
    average = score(predictions, set(predictions), len(labels))["average"]
    windows = mean(p.costs.get("windows", 1.0) for p in predictions.values())
    return {"accuracy": average["accuracy"], "interval": average["accuracy_interval"], "windows": windows}


def milliseconds(models: Mapping[str, TorchModel], ways: Mapping[str, Reading], dev: list[Example]) -> dict[str, Any]:
    """By model and way: median, p95, mean, and means by the windows that a text fills."""
    timed = {}
    for name, model in models.items():
        for way, reading in ways.items():
            timed[name, way] = Classifier(TorchModel(model.network, model.tokenizer, reading)).predict_examples
    latencies = measure_latencies(timed, dev, 0)
    windows = windows_filled(next(iter(models.values())), timed_texts(dev, 0))
    return {name: {way: latencies[name, way].summary(windows) for way in ways} for name in models}


def by_words(model: TorchModel, dev: Sequence[Example], length: int) -> list[dict[str, Any]]:
    """Seconds for one text made of the words of dev, by its words, and the most memory until then."""
    words, rows = " ".join(e.text for e in dev).split(), []
    for most_windows, count in product((DEFAULT, 10_000), WORDS):
        text = Example("", " ".join(islice(cycle(words), count)), None, "", "")
        model.read_as(Reading(max_length=length, most_windows=most_windows))
        started = time.perf_counter()
        windows = int(model.answers([text]).windows_read[0])
        seconds = round(time.perf_counter() - started, 3)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
        rows.append({"words": count, "windows": windows, "seconds": seconds, "peak_memory_bytes": peak})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--most-windows", type=int, default=DEFAULT)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    results: dict[str, Any] = {"seeds": {}}
    for folder in options.runs:
        begun = read_run(folder)
        run = Run.assemble(folder, Settings.build(begun["settings"]), begun["data"])
        rows, labels = by_domain(run.data.splits["dev"]), run.data.labels
        ways = readings(run.settings.max_length, options.most_windows)
        teacher = TorchModel.load(run.folders.teacher, "cpu")
        students = {d: TorchModel.load(run.folders.student(run.settings.method, d), "cpu") for d in run.data.domains}
        fleets: dict[str, Fleet] = {"meta_teacher": dict.fromkeys(run.data.domains, teacher), "student": students}
        scored: dict[str, dict[str, Any]] = {
            name: {way: scores(fleet, rows, labels, reading) for way, reading in ways.items()}
            | {ADAPTIVE: cross_fitted(fleet, rows, labels, ways["mean"])}
            for name, fleet in fleets.items()
        }
        if not results["seeds"]:
            timed = {"meta_teacher": teacher, "student": students[run.data.domains[0]]}
            enough = {name: max(1.0 if e is None else e for e in of[ADAPTIVE]["enough"]) for name, of in scored.items()}
            results["latency_ms"] = {
                name: milliseconds(
                    {name: model},
                    ways | {ADAPTIVE: ways["mean"].model_copy(update={"enough": enough[name]})},
                    run.data.splits["dev"],
                )[name]
                for name, model in timed.items()
            }
            results["by_words"] = by_words(timed["student"], run.data.splits["dev"], run.settings.max_length)
        results["seeds"][str(run.settings.seed)] = scored
        print(json.dumps(scored, indent=2))
    results |= {"most_windows": options.most_windows, "environment": environment()}
    write_json(options.output, results)
    print(table(results))


def table(results: Mapping[str, Any]) -> str:
    rows = [["model", "reads", "accuracy on dev", "windows", "mean ms", "of the first's"]]
    for name, ways in results["latency_ms"].items():
        for way, times in ways.items():
            each = [seed[name][way] for seed in results["seeds"].values()]
            accuracy, windows = (mean(of[figure] for of in each) for figure in ("accuracy", "windows"))
            ratio = times["mean"] / ways["first"]["mean"]
            rows.append([name, way, f"{100 * accuracy:.1f}", f"{windows:.2f}", f"{times['mean']:.1f}", f"{ratio:.2f}"])
    return as_markdown(rows)


if __name__ == "__main__":
    main()
