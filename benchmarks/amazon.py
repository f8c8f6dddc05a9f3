"""Meta-KD on Amazon reviews of four domains: teacher, students and baselines, several seeds.

    python benchmarks/amazon.py --data DIR [--seeds 0 1 2] [--config benchmarks/authors.yaml] [--work runs/amazon]
        [--before FILE] [--finished RUN ...] [--latencies RUN]
    python benchmarks/amazon.py --data DIR --tfidf

DIR holds train.jsonl(.gz) and dev.jsonl(.gz), and no test, so that scores are on dev.
Settings are the defaults, but for those of --config. Finished steps of an earlier call in --work are kept, so that a
stopped benchmark goes on. Adds its seeds to benchmarks/results/amazon.json (amazon-authors.json for authors.yaml) and
prints the table of all that are there. --before names an earlier result, with which each seed is compared. --tfidf
computes the TF-IDF rows of the seeds that are there again, which takes no models, but for their latencies. --finished
names folders of `metakd run --data DIR --seed N` in the place of --seeds, of a machine with a GPU for instance: of each
its results.json is taken. --latencies names a run of the same sizes on the processor whose milliseconds are wanted.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from metakd import Run, Settings, run_all
from metakd.config.settings_file import read_settings_file
from metakd.data.dataset import MultiDomainDataset, load_dataset
from metakd.data.splits import leaks
from metakd.evaluation.predictions import predict_by_tfidf
from metakd.pipeline.evaluate import score_models
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import environment

RESULTS = Path(__file__).parent / "results"
FIGURES = ("accuracy", "macro_f1")


def conditions(results: dict[str, Any]) -> list[Any]:
    """What has to be the same for seeds to be averaged; the budget is what the disk had free."""
    run = results["run"]
    return [results["split"], run["data_fingerprint"], {**run["settings"], "seed": None, "cache_budget": None}]


def over_seeds(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean and standard deviation over seeds of each model's scores, with sizes and latencies of the first."""
    first = next(iter(results.values()))
    summary: dict[str, dict[str, Any]] = {}
    for model, average in first["average"].items():
        summary[model] = {key: average[key] for key in ("parameters", "bytes", "latency_ms")}
        for figure in FIGURES:
            values = [result["average"][model][figure] for result in results.values()]
            summary[model][figure] = mean(values)
            summary[model][f"{figure}_deviation"] = stdev(values) if len(values) > 1 else 0.0
        summary[model]["domains"] = {
            domain: mean(result["domains"][domain][model]["accuracy"] for result in results.values())
            for domain in first["domains"]
        }
    return summary


def since(before: dict[str, Any], results: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Accuracy now less accuracy in an earlier result, by model and seed, of what both have."""
    seeds = [seed for seed in results if seed in before["seeds"]]
    return {
        model: {
            seed: results[seed]["average"][model]["accuracy"] - before["seeds"][seed]["average"][model]["accuracy"]
            for seed in seeds
        }
        for model in next(iter(results.values()))["average"]
        if model in next(iter(before["seeds"].values()))["average"]
    }


def tfidf_again(result: dict[str, Any], data: MultiDomainDataset) -> None:
    """Put today's TF-IDF baseline into the result of a seed."""
    rows = data.splits[result["split"]]
    predictions = predict_by_tfidf(data.train, data.labels, rows, result["run"]["settings"]["seed"]).predictions
    timed = {
        domain: replace(p, costs=p.costs | {"latency_ms": result["domains"][domain]["tfidf"]["latency_ms"]})
        for domain, p in predictions.items()
    }
    leaked = {example.id for example in leaks(data.splits).get(result["split"], [])}
    (scores,) = score_models({"meta_teacher": timed}, result["run"], rows, leaked).values()
    result["average"]["tfidf"] = scores["average"]
    for domain, scored in scores["domains"].items():
        result["domains"][domain]["tfidf"] = scored


def results_in(run: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((run / "results.json").read_text(encoding="utf-8"))
    results["run"].pop("data")
    return results


def with_latencies(results: Iterable[dict[str, Any]], timed: dict[str, Any]) -> None:
    """Put the latencies of another run into `results`: of the same model, or of another of the same size."""
    by_size = {average["parameters"]: average["latency_ms"] for average in timed["average"].values()}
    by_name = {name: average["latency_ms"] for name, average in timed["average"].items()}
    for result in results:
        for models in (result["average"], *result["domains"].values()):
            for name, scores in models.items():
                scores["latency_ms"] = by_name.get(name) or by_size[scores["parameters"]]


def finished_results(options: argparse.Namespace) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The results of --finished by seed, with the latencies of --latencies, and where these come from."""
    finished = [results_in(folder) for folder in options.finished]
    around = {"environment": finished[0]["environment"]} if finished else {}
    if options.latencies:
        timed = results_in(options.latencies)
        with_latencies(finished, timed)
        around["latency_environment"] = timed["environment"]
    return {str(each["run"]["settings"]["seed"]): each for each in finished}, around


def table(summary: dict[str, dict[str, Any]]) -> str:
    domains = list(next(iter(summary.values()))["domains"])
    rows = [["model", *domains, "average", "± seeds", "parameters", "MB", "ms"]]
    rows.append(["---", *["---:"] * (len(rows[0]) - 1)])
    for model, figures in summary.items():
        rows.append(
            [
                model,
                *(f"{100 * figures['domains'][domain]:.1f}" for domain in domains),
                f"{100 * figures['accuracy']:.1f}",
                f"{100 * figures['accuracy_deviation']:.1f}",
                f"{figures['parameters'] / 1e6:.2f} M",
                f"{figures['bytes'] / 1e6:.1f}",
                f"{figures['latency_ms']['median']:.1f}",
            ]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path("runs/amazon"))
    parser.add_argument("--config", type=Path)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--tfidf", action="store_true")
    parser.add_argument("--finished", type=Path, nargs="+", default=[])
    parser.add_argument("--latencies", type=Path)
    options = parser.parse_args()
    values = read_settings_file(options.config) if options.config else {}
    result = RESULTS / (f"amazon-{options.config.stem}.json" if options.config else "amazon.json")
    results = json.loads(result.read_text(encoding="utf-8"))["seeds"] if result.is_file() else {}
    finished, around = finished_results(options)
    results |= finished
    if finished:
        options.seeds = []
    if options.tfidf:
        data, options.seeds = load_dataset(str(options.data)), []
        for result_of_seed in results.values():
            tfidf_again(result_of_seed, data)
    for seed in options.seeds:
        settings = Settings.build(values | {"seed": seed})
        results[str(seed)] = run_all(Run.assemble(options.work / f"seed{seed}", settings, options.data).begin())
        results[str(seed)]["run"].pop("data")
    if len({json.dumps(conditions(seed), sort_keys=True) for seed in results.values()}) > 1:
        raise SystemExit(f"{result} holds seeds of other data, settings or splits; move it away first")
    results = dict(sorted(results.items()))
    summary = over_seeds(results)
    outcome: dict[str, Any] = {"summary": summary, "seeds": results, "environment": environment()} | around
    if options.tfidf:
        outcome = json.loads(result.read_text(encoding="utf-8")) | {"summary": summary, "seeds": results}
        outcome["tfidf_environment"] = environment()
    if options.before:
        before = json.loads(options.before.read_text(encoding="utf-8"))
        outcome["before"] = {"commit": before["environment"]["commit"], "differences": since(before, results)}
        print(json.dumps(outcome["before"], indent=2))
    write_json(result, outcome)
    print(table(summary))
    minutes = {seed: round(sum(result["seconds"].values()) / 60, 1) for seed, result in results.items()}
    print(json.dumps(minutes), "minutes by seed")


if __name__ == "__main__":
    main()
