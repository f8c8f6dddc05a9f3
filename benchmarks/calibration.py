"""How far a domain's temperature should go from that of all domains, on runs with two labels.

    python benchmarks/calibration.py RUN ... --data DIR

Of each finished RUN the probabilities of its students on dev, as predictions.jsonl has them (four digits), with their
temperature taken off; rows whose text is also in train are left out. Writes benchmarks/results/calibration.json: for
each spread [metakd.evaluation.calibration], from nearly 0 (one temperature for all) to nearly infinite (each domain by
itself), means of the cross-fitted figures over 20 draws of the folds.
"""

import argparse
import json
from pathlib import Path
from statistics import mean
from typing import Any
from unittest.mock import patch

import numpy as np

from metakd import load_dataset
from metakd.data.splits import leaks
from metakd.evaluation import calibration
from metakd.evaluation.calibration import Answers, cross_fitted, quality, together
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import environment

RESULT = Path(__file__).parent / "results" / "calibration.json"
SPREADS = (0.001, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1000.0)
DRAWS = 20
LEAST = 5e-5  # half of the last digit of a probability


def answers_of(run: Path, leaked: set[str]) -> dict[str, Answers]:
    """By domain: what the students say before they are calibrated."""
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    labels, temperatures = results["run"]["labels"], results["calibration"]["temperatures"]
    rows: dict[str, list[tuple[list[float], int]]] = {domain: [] for domain in temperatures}
    for row in map(json.loads, (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()):
        if row["id"] not in leaked:
            label, p = row["models"]["student"]
            odds = np.log(np.clip(p, LEAST, 1 - LEAST) / np.clip(1 - p, LEAST, 1 - LEAST)) * temperatures[row["domain"]]
            log_p = [-np.logaddexp(0, -odds), -np.logaddexp(0, odds)]
            rows[row["domain"]].append((log_p[:: 1 if label == labels[0] else -1], labels.index(row["label"])))
    return {domain: Answers(*map(np.array, zip(*each, strict=True))) for domain, each in rows.items()}


def figures(answers: dict[str, Answers], spread: float) -> dict[str, float]:
    drawn = []
    with patch.object(calibration, "SPREAD", spread):
        for seed in range(DRAWS):
            scaled = cross_fitted(answers, seed)
            drawn.append(quality(*together([a._replace(log_p=scaled[d]) for d, a in answers.items()]), seed))
    return {name: round(mean(each[name] for each in drawn), 5) for name in drawn[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--data", required=True)
    options = parser.parse_args()
    leaked = {example.id for example in leaks(load_dataset(options.data).splits).get("dev", [])}
    results: dict[str, Any] = {}
    for run in options.runs:
        answers = answers_of(run, leaked)
        texts = together([*answers.values()])
        by_spread = {str(spread): figures(answers, spread) for spread in SPREADS}
        results[run.name] = {"texts": len(texts.truth), "before": quality(*texts, 0), "by_spread": by_spread}
        print(run.name, json.dumps(results[run.name], indent=2))
    average = {s: mean(r["by_spread"][s]["log_likelihood_loss"] for r in results.values()) for s in map(str, SPREADS)}
    print(json.dumps(average, indent=2))
    write_json(RESULT, {"log_likelihood_loss": average, "runs": results, "environment": environment()})


if __name__ == "__main__":
    main()
