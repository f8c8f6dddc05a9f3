"""Meta-KD on Amazon reviews of four domains: teacher, students and rivals, several seeds.

    python benchmarks/amazon.py --data DIR [--seeds 0 1 2] [--config benchmarks/authors.yaml] [--work runs/amazon]
        [--before FILE]

DIR holds train.jsonl(.gz) and dev.jsonl(.gz), and no test, so that scores are on dev.
Settings are the defaults, but for those of --config. Finished steps of an earlier call in --work are kept, so that a
stopped benchmark goes on. Adds its seeds to benchmarks/results/amazon.json (amazon-authors.json for authors.yaml) and
prints the table of all that are there. --before names an earlier result, with which each seed is compared.
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from metakd import Run, Settings, run_all
from metakd.config.yaml_file import read_settings_file
from metakd.utils.artifacts import write_json
from metakd.utils.environment import environment

RESULTS = Path(__file__).parent / "results"
FIGURES = ("accuracy", "macro_f1")


def conditions(results: dict[str, Any]) -> list[Any]:
    """What has to be the same for seeds to be averaged; the budget is what the disk had free."""
    run = results["run"]
    return [results["split"], run["data_fingerprint"], {**run["settings"], "seed": None, "cache_budget": None}]


def over_seeds(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean and standard deviation over seeds of each model's scores, with sizes and latencies of the first."""
    first = next(iter(found.values()))
    summary: dict[str, dict[str, Any]] = {}
    for model, average in first["average"].items():
        summary[model] = {key: average[key] for key in ("parameters", "bytes", "latency_ms")}
        for figure in FIGURES:
            values = [results["average"][model][figure] for results in found.values()]
            summary[model][figure] = mean(values)
            summary[model][f"{figure}_deviation"] = stdev(values) if len(values) > 1 else 0.0
        summary[model]["domains"] = {
            domain: mean(results["domains"][domain][model]["accuracy"] for results in found.values())
            for domain in first["domains"]
        }
    return summary


def since(before: dict[str, Any], found: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Accuracy now less accuracy in an earlier result, by model and seed, of what both have."""
    seeds = [seed for seed in found if seed in before["seeds"]]
    return {
        model: {
            seed: found[seed]["average"][model]["accuracy"] - before["seeds"][seed]["average"][model]["accuracy"]
            for seed in seeds
        }
        for model in next(iter(found.values()))["average"]
        if model in next(iter(before["seeds"].values()))["average"]
    }


def table(summary: dict[str, dict[str, Any]]) -> str:
    domains = list(next(iter(summary.values()))["domains"])
    lines = [["model", *domains, "average", "± seeds", "parameters", "MB", "ms"]]
    lines.append(["---", *["---:"] * (len(lines[0]) - 1)])
    for model, found in summary.items():
        lines.append(
            [
                model,
                *(f"{100 * found['domains'][domain]:.1f}" for domain in domains),
                f"{100 * found['accuracy']:.1f}",
                f"{100 * found['accuracy_deviation']:.1f}",
                f"{found['parameters'] / 1e6:.2f} M",
                f"{found['bytes'] / 1e6:.1f}",
                f"{found['latency_ms']['median']:.1f}",
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path("runs/amazon"))
    parser.add_argument("--config", type=Path)
    parser.add_argument("--before", type=Path)
    arguments = parser.parse_args()
    values = read_settings_file(arguments.config) if arguments.config else {}
    result = RESULTS / (f"amazon-{arguments.config.stem}.json" if arguments.config else "amazon.json")
    found = json.loads(result.read_text(encoding="utf-8"))["seeds"] if result.is_file() else {}
    for seed in arguments.seeds:
        settings = Settings.build(values | {"seed": seed})
        results = run_all(Run.assemble(arguments.work / f"seed{seed}", settings, arguments.data).begin())
        results["run"].pop("data")
        found[str(seed)] = results
    if len({json.dumps(conditions(results), sort_keys=True) for results in found.values()}) > 1:
        raise SystemExit(f"{result} holds seeds of other data, settings or splits; move it away first")
    found = dict(sorted(found.items()))
    summary = over_seeds(found)
    outcome: dict[str, Any] = {"summary": summary, "seeds": found, "environment": environment()}
    if arguments.before:
        before = json.loads(arguments.before.read_text(encoding="utf-8"))
        outcome["before"] = {"commit": before["environment"]["commit"], "differences": since(before, found)}
        print(json.dumps(outcome["before"], indent=2))
    write_json(result, outcome)
    print(table(summary))
    print(json.dumps({seed: round(sum(r["seconds"].values()) / 60, 1) for seed, r in found.items()}), "minutes by seed")


if __name__ == "__main__":
    main()
