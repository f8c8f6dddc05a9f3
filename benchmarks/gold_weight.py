"""Which weight gold labels want where rows also have a large model's probabilities: accuracy of the teacher on dev.

    metakd label --data labelled/train.jsonl --model MODEL --output answered/train.jsonl
    python benchmarks/gold_weight.py answered others --work runs/gold [--seeds 3] [--weights 0 0.5 1]

Each argument is a folder: every row of its train has `label` and `probabilities`, rows of dev have `label`. For each
gold weight and seed, the meta-teacher is fine-tuned on both, as `metakd run --soft-labels` does it by its defaults, and
scored on dev. What is finished in --work is not repeated. Adds to benchmarks/results/gold_weight.json, by folder: how
often the probabilities are right on train, each weight's accuracy, and the last one's difference from the others,
paired by text and seed.
"""

import argparse
import json
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from metakd import Run, Settings, load_dataset
from metakd.data.dataset import MultiDomainDataset
from metakd.evaluation.predictions import predict_by_models
from metakd.evaluation.statistics import compare
from metakd.pipeline.teach import teach
from metakd.pipeline.weigh import weigh
from metakd.runs.defaults import fitted
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import environment

RESULT = Path(__file__).parent / "results" / "gold_weight.json"


def rights(data: MultiDomainDataset, work: Path, weight: float, seed: int) -> dict[str, np.ndarray]:
    """Which rows of dev the teacher is right on, by domain."""
    changes = {"soft_labels": True, "gold_weight": weight, "seed": seed, "allow_weak_teacher": True, "track": "none"}
    run = Run(work / f"{weight:g}-{seed}", fitted(Settings.build(changes), data), data)
    weigh(run)
    fleet = dict.fromkeys(data.domains, teach(run))
    classes = {domain: run.features.classes(domain) for domain in data.domains}
    predictions = predict_by_models({"teacher": fleet}, data.labels, data.splits["dev"], classes=classes)["teacher"]
    return {domain: each.right for domain, each in predictions.items()}


def measure(folder: Path, work: Path, weights: list[float], seeds: range) -> dict[str, Any]:
    data = load_dataset(folder, 0, soft_labels=True)
    answers = [max(e.soft_label, key=itemgetter(1))[0] == e.label for e in data.train]
    by_weight: dict[str, dict[str, np.ndarray]] = {}
    for weight in weights:
        by_seed = [rights(data, work, weight, seed) for seed in seeds]
        by_weight[f"{weight:g}"] = {domain: np.stack([one[domain] for one in by_seed]) for domain in by_seed[0]}
        print(folder.name, weight, [round(np.mean([r.mean() for r in one.values()]), 4) for one in by_seed], flush=True)
    rows = {"train": len(data.train), "dev": len(data.splits["dev"])}
    return {"rows": rows, "answers_right": float(np.mean(answers)), **compare(f"{weights[-1]:g}", by_weight)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weights", type=float, nargs="+", default=[0, 0.25, 0.5, 0.75, 1])
    options = parser.parse_args()
    for folder in options.data:
        figures = measure(folder, options.work / folder.name, options.weights, range(options.seeds))
        known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
        write_json(RESULT, {**known, folder.name: {**figures, "environment": environment()}})


if __name__ == "__main__":
    main()
