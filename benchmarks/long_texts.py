"""What it brings to read whole texts: accuracy and milliseconds by how models read.

    python benchmarks/long_texts.py --data DIR --work FOLDER [--seeds 0,1,2] [--precision bfloat16]

DIR and FOLDER are those of budget.py, which trains teachers and students of three layers where they are missing. They
read of each text of test the first window, all windows, windows until they are sure, or 256 and 512 tokens at once. Dev
chooses how sure, as in `metakd run --long-texts adaptive`. Milliseconds are those of the teacher and of one student of
the first seed, one text at a time, in turns, on a sample of test that is stratified by length, each text by the least
of its rounds, since other work on a machine only lengthens them; `mean` is over texts. --only-times measures these
alone again. Last, the seconds and memory of one text of up to 100,000 words, of which every window is read, or as many
as the default allows.
"""

import argparse
import json
import resource
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle, islice, product
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

from budget import TEACHER, cut, least_latencies, trained_fleets

from metakd import Classifier, Run, Settings
from metakd.data.schema import Example
from metakd.data.splits import by_domain
from metakd.data.windows import Reading
from metakd.evaluation.costs import timed_texts, windows_filled
from metakd.evaluation.metrics import score
from metakd.evaluation.predictions import loader, predictions_of
from metakd.evaluation.tables import as_markdown
from metakd.inference.torch_backend import TorchModel
from metakd.pipeline.readings import choose_reading
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import environment

RESULT = Path(__file__).parent / "results" / "long_texts.json"
STUDENT, ADAPTIVE, DEFAULT = "layers=3", "adaptive", Settings.model_fields["most_windows"].default
WORDS = (100, 1_000, 5_000, 20_000, 100_000)


def readings(length: int, adaptive: Reading) -> dict[str, Reading]:
    return {
        "first": Reading(max_length=length),
        "mean": Reading(max_length=length, most_windows=DEFAULT),
        ADAPTIVE: adaptive,
        "256 at once": Reading(max_length=256),
        "512 at once": Reading(max_length=512),
    }


def scores(
    fleet: Mapping[str, TorchModel], rows: Mapping[str, list[Example]], labels: list[str], reading: Reading
) -> dict[str, Any]:
    """Accuracy with its interval, and windows, of a fleet (domain -> model) on each domain's rows."""
    predictions = {}
    for domain, model in fleet.items():
        model.read_as(reading)
        predictions[domain] = predictions_of(rows[domain], labels, model)
    average = score(predictions, set(predictions), len(labels))["average"]
    windows = mean(p.costs.get("windows", 1.0) for p in predictions.values())
    figures = {"accuracy": average["accuracy"], "interval": average["accuracy_interval"], "windows": windows}
    return figures | ({} if reading.enough is None else {"enough": reading.enough})


def milliseconds(
    model: TorchModel, ways: Mapping[str, Reading], examples: list[Example], rounds: int
) -> dict[str, Any]:
    """By way: median, p95, mean, and means by the windows that a text fills."""
    timed = {
        way: Classifier(TorchModel(model.network, model.tokenizer, reading)).predict_examples
        for way, reading in ways.items()
    }
    latencies = least_latencies(timed, examples, rounds)
    windows = windows_filled(model, timed_texts(examples, seed=0))
    return {way: latencies[way].summary(windows) for way in ways}


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
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only-times", action="store_true", help="and keep all else of the committed result")
    options = parser.parse_args()
    seeds, layers = [int(n) for n in options.seeds.split(",")], [int(STUDENT.removeprefix("layers="))]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        train = [apart.submit(trained_fleets, options.data, options.work, layers, n, options.precision) for n in seeds]
        trained = [fleets.result() for fleets in train]
    data, load = cut(options.data), loader({}, calibrated=False)
    run = Run(options.work, Settings(long_texts=ADAPTIVE, precision=options.precision), data)
    test, length = data.splits["test"], run.settings.max_length
    results = json.loads(RESULT.read_text(encoding="utf-8")) if options.only_times else {"seeds": {}}
    for seed, fleets in zip(() if options.only_times else seeds, trained, strict=False):
        scored = results["seeds"][str(seed)] = {}
        for name in (TEACHER, STUDENT):
            ways = readings(length, choose_reading(run, fleets[name], load))
            fleet = {domain: load(folder) for domain, folder in fleets[name].items()}
            scored[name] = {way: scores(fleet, by_domain(test), data.labels, reading) for way, reading in ways.items()}
        print(json.dumps(scored, indent=2), flush=True)
    results["latency_ms"] = {}
    for name in (TEACHER, STUDENT):
        model, ways = (
            load(trained[0][name][data.domains[0]]),
            readings(length, choose_reading(run, trained[0][name], load)),
        )
        results["latency_ms"][name] = milliseconds(model, ways, test, options.rounds)
    results["by_words"] = by_words(model, test, length)
    results |= {"examples": len(test), "most_windows": DEFAULT, "rounds": options.rounds}
    times = "environment_of_times" if options.only_times else "environment"
    write_json(RESULT, results | {times: environment()})
    print(table(results))


def table(results: Mapping[str, Any]) -> str:
    rows = [["model", "reads", "accuracy", "of the gain", "windows", "mean ms", "of the first's"]]
    for name, ways in results["latency_ms"].items():
        seeds = [seed[name] for seed in results["seeds"].values()]
        accuracies = {way: mean(seed[way]["accuracy"] for seed in seeds) for way in ways}
        first, whole = accuracies["first"], accuracies["mean"]
        for way, times in ways.items():
            gain = f"{(accuracies[way] - first) / (whole - first):.2f}"
            windows = f"{mean(seed[way]['windows'] for seed in seeds):.2f}"
            ratio = f"{times['mean'] / ways['first']['mean']:.2f}"
            rows.append([name, way, f"{100 * accuracies[way]:.1f}", gain, windows, f"{times['mean']:.1f}", ratio])
    return as_markdown(rows)


if __name__ == "__main__":
    main()
