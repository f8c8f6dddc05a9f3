"""Texts with several intents, or none: teacher, students and baselines on NLU++, or any such data.

    python benchmarks/nlupp.py --data data/nlupp --work runs/nlupp [--seeds 3] [--exports RUN]

Runs `metakd run --data DATA --seed N` by the defaults for each seed; what is finished in --work is not repeated. Writes
benchmarks/results/nlupp.json: micro-F1 of each kind of model by domain and on average, as means over the seeds, and the
students' difference from each, with 95 % intervals for other texts of these domains: percentiles of 2,000 draws of
texts, the same for all models and seeds (paired bootstrap). Also, by seed, the scores of the same models if each label
were given above one half; and the exports of the first seed beside PyTorch, or those of RUN. If the seeds were run
elsewhere, so that --work has only their results.json and predictions.jsonl, --exports is needed, and the scores above
one half are left out.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from exports import export, parity
from numpy.typing import NDArray

from metakd import Classifier, load_dataset
from metakd.data.dataset import MultiDomainDataset
from metakd.data.schema import folder_name
from metakd.evaluation.metrics import score
from metakd.evaluation.predictions import predict_by_models
from metakd.evaluation.thresholds import Thresholds
from metakd.inference.thresholds import HALF
from metakd.methods import BASELINE
from metakd.utils.artifacts import read_run, write_json
from metakd.utils.hardware import environment

RESULT = Path(__file__).parent / "results" / "nlupp.json"
DRAWS = 2_000
Counts = NDArray[np.float64]  # (2, S, N): twice the labels that a text has and was given, and labels of both


def run(data: Path, output: Path, seed: int) -> Path:
    if not (output / "results.json").is_file():
        command = ("run", "--data", data, "--output", output, "--seed", seed, "--resume")
        subprocess.run([sys.executable, "-m", "metakd", *map(str, command)], check=True)
    return output


def counts(runs: Sequence[Path], model: str) -> dict[str, Counts]:
    """Of each domain's scored texts, in the same order for all seeds and models."""
    by_domain: dict[str, list[list[tuple[int, int]]]] = {}
    for folder in runs:
        rows = [json.loads(row) for row in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
        rows.sort(key=lambda row: row["id"])
        for domain in sorted({row["domain"] for row in rows}):
            pairs = [
                ({*json.loads(row["label"])}, {*json.loads(row["models"][model][0])})
                for row in rows
                if row["domain"] == domain
            ]
            by_domain.setdefault(domain, []).append([(2 * len(a & b), len(a) + len(b)) for a, b in pairs])
    return {domain: np.array(seeds, float).transpose(2, 0, 1) for domain, seeds in by_domain.items()}


def micro_f1(domains: Mapping[str, Counts], draws: Mapping[str, NDArray[np.int64]] | None = None) -> Any:
    """The plain mean over seeds and domains; with `draws`, texts (D, N) by domain, one for each draw: (D,)."""
    means = []
    for domain, both in domains.items():
        hits, sizes = both.sum(-1) if draws is None else both[:, :, draws[domain]].sum(-1)
        means.append((hits / sizes).mean(0))
    return np.mean(means, axis=0)


def interval(values: NDArray[np.float64]) -> list[float]:
    return [float(value) for value in np.quantile(values, (0.025, 0.975))]


def compared(runs: Sequence[Path], models: Sequence[str]) -> dict[str, Any]:
    draw, by_model = np.random.default_rng(0), {model: counts(runs, model) for model in models}
    sizes = {domain: both.shape[-1] for domain, both in by_model["student"].items()}
    draws = {domain: draw.integers(0, size, (DRAWS, size)) for domain, size in sizes.items()}
    exact = {model: float(micro_f1(domains)) for model, domains in by_model.items()}
    drawn = {model: micro_f1(domains, draws) for model, domains in by_model.items()}
    figures = {
        model: {
            "micro_f1": exact[model],
            "interval": interval(drawn[model]),
            "domains": {domain: float(micro_f1({domain: both})) for domain, both in by_model[model].items()},
            "by_seed": [
                float(micro_f1({d: both[:, [s]] for d, both in by_model[model].items()})) for s in range(len(runs))
            ],
        }
        for model in models
    }
    for model in models:
        if model != "student":
            difference = {
                "mean": exact["student"] - exact[model],
                "interval": interval(drawn["student"] - drawn[model]),
            }
            figures[model]["student_minus_this"] = difference
    return {"texts": sizes, "models": figures}


def at_one_half(run: Path, data: MultiDomainDataset) -> dict[str, Any]:
    """The average scores of the run's models, if each label were given above one half."""
    folders = {"meta_teacher": "meta_teacher", "student": "students/{}", BASELINE: f"{BASELINE}/{{}}"}
    fleets = {
        name: {domain: run / path.format(folder_name(domain)) for domain in data.domains}
        for name, path in folders.items()
    }
    halves = {
        name: {
            d: Thresholds(dict.fromkeys(Classifier.from_pretrained(path).labels, HALF), {}) for d, path in fleet.items()
        }
        for name, fleet in fleets.items()
    }
    rows, classes = data.splits[data.scored_split or ""], read_run(run).get("classes")
    predictions = predict_by_models(fleets, data.labels, rows, classes=classes, thresholds=halves)
    return {name: score(each, {*data.domains}, len(data.labels))["average"] for name, each in predictions.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--exports", type=Path)
    options = parser.parse_args()
    runs = [run(options.data, options.work / f"seed-{seed}", seed) for seed in range(options.seeds)]
    results = [json.loads((folder / "results.json").read_text(encoding="utf-8")) for folder in runs]
    first, exported, data = results[0], options.exports or runs[0], load_dataset(options.data)
    export(exported, models := options.work / f"exports-{exported.name}")
    figures = {
        "data": options.data.name,
        "split": first["split"],
        "labels": len(first["run"]["labels"]),
        "seeds": options.seeds,
        "minutes": [round(sum(each["seconds"].values()) / 60, 1) for each in results],
        **compared(runs, [*first["average"]]),
        "average": [each["average"] for each in results],
        "calibration": [each["calibration"] for each in results],
        "at_one_half": [at_one_half(folder, data) for folder in runs if (folder / "students").is_dir()],
        "exports": parity(exported, models),
        "settings": {
            name: first["run"]["settings"][name]
            for name in ("batch_size", "teacher_learning_rate", "teacher_epochs", "shared_epochs")
        },
        "environment": first["environment"],
        "exports_environment": environment(),
    }
    write_json(RESULT, figures)


if __name__ == "__main__":
    main()
