"""What it brings to read whole texts: accuracy and milliseconds by how models read.

    python benchmarks/long_texts.py --data DIR --work FOLDER [--seeds 0,1,2] [--precision bfloat16]

DIR and FOLDER are those of budget.py; teachers and students of three layers are trained if they are missing. They read
of each text of test the first window, all windows, windows until they are sure, or 256 and 512 tokens at once. Dev
chooses how sure, as in `metakd run --long-texts adaptive`. Milliseconds are those of the first seed's models, each
domain's student on its own texts, one text at a time, in turns, on a sample of test that is stratified by length: each
text's shortest time of all rounds, since other work can only lengthen it; `mean` is over texts. Then come the seconds
and memory of one text of up to 100,000 words, of which every window is read, or as many as the default allows.
--only-times keeps the scores.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Mapping, Sequence
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
LAYERS, ADAPTIVE, DEFAULT = 3, "adaptive", Settings.model_fields["most_windows"].default
STUDENT = f"layers={LAYERS}"
MODELS = (TEACHER, STUDENT)
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
    fleet: Mapping[str, TorchModel], ways: Mapping[str, Reading], examples: list[Example], rounds: int
) -> dict[str, Any]:
    """By way: median, mean, and means by the windows that a text fills; each text by the model of its domain."""

    def reader(reading: Reading) -> Callable[[Sequence[Example]], object]:
        models = {d: Classifier(TorchModel(m.network, m.tokenizer, reading)) for d, m in fleet.items()}
        return lambda texts: models[texts[0].domain].predict_examples(texts)

    latencies = least_latencies({way: reader(reading) for way, reading in ways.items()}, examples, rounds)
    windows = windows_filled(next(iter(fleet.values())), timed_texts(examples, seed=0))
    summaries = {way: latencies[way].summary(windows) for way in ways}
    return {way: {name: value for name, value in each.items() if name != "p95"} for way, each in summaries.items()}


def by_words(model: TorchModel, examples: Sequence[Example], length: int) -> list[dict[str, Any]]:
    """Seconds for one text made of the words of the examples, by its words, and the most memory until then."""
    words, rows = " ".join(e.text for e in examples).split(), []
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
    parser.add_argument("--only-times", action="store_true", help="keep the scores of the committed result")
    options = parser.parse_args()
    seeds = [int(n) for n in options.seeds.split(",")][: 1 if options.only_times else None]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        train = [
            apart.submit(trained_fleets, options.data, options.work, [LAYERS], seed, options.precision)
            for seed in seeds
        ]
        trained = [fleets.result() for fleets in train]
    data, load = cut(options.data), loader({}, calibrated=False)
    run = Run(options.work, Settings(long_texts=ADAPTIVE, precision=options.precision), data)
    test, length = data.splits["test"], run.settings.max_length

    def opened(fleet: Mapping[str, Path]) -> tuple[dict[str, TorchModel], dict[str, Reading]]:
        ways = readings(length, choose_reading(run, fleet, load))
        return {domain: load(folder) for domain, folder in fleet.items()}, ways

    results = json.loads(RESULT.read_text(encoding="utf-8")) if options.only_times else {"seeds": {}}
    if not options.only_times:
        for seed, fleets in zip(seeds, trained, strict=True):
            scored = results["seeds"][str(seed)] = {}
            for name in MODELS:
                fleet, ways = opened(fleets[name])
                scored[name] = {way: scores(fleet, by_domain(test), data.labels, ways[way]) for way in ways}
            print(json.dumps(scored, indent=2), flush=True)
    results["latency_ms"] = {name: milliseconds(*opened(trained[0][name]), test, options.rounds) for name in MODELS}
    results["by_words"] = by_words(opened(trained[0][STUDENT])[0][data.domains[0]], test, length)
    results |= {"examples": len(test), "most_windows": DEFAULT, "rounds": options.rounds}
    results |= {"environment_of_times" if options.only_times else "environment": environment()}
    print(table(results))
    write_json(RESULT, results)


def table(results: Mapping[str, Any]) -> str:
    rows = [["model", "reads", "accuracy", "of the gain", "windows", "mean ms", "of the first's"]]
    for name, ways in results["latency_ms"].items():
        seeds = [seed[name] for seed in results["seeds"].values()]
        accuracies = {way: mean(seed[way]["accuracy"] for seed in seeds) for way in ways}
        first, whole = accuracies["first"], accuracies["mean"]
        for way, times in ways.items():
            gain = f"{(accuracies[way] - first) / (whole - first):.2f}" if whole != first else ""
            windows = f"{mean(seed[way]['windows'] for seed in seeds):.2f}"
            ratio = f"{times['mean'] / ways['first']['mean']:.2f}"
            rows.append([name, way, f"{100 * accuracies[way]:.1f}", gain, windows, f"{times['mean']:.1f}", ratio])
    return as_markdown(rows)


if __name__ == "__main__":
    main()
