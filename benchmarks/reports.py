"""Every report in benchmarks/results/evidence made again from the committed rows, without training.

    python benchmarks/reports.py

Accuracies stay as they are, which is how a report's rows are recognised: those of each of its models and seeds whose
mean is the report's. Intervals, tests and verdicts become those of today's statistics.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from metakd.evaluation.statistics import Values, compare, difference, summary
from metakd.experiments.results_store import ResultsStore
from metakd.utils.artifacts import write_json

EVIDENCE = Path(__file__).parent / "results" / "evidence"


def right_of(rows: Sequence[Mapping[str, Any]], report: Mapping[str, Any], name: str, model: Any) -> Values:
    """What `model` of the report got right: domain -> (seeds, examples). LookupError if no rows have its accuracies.

    A model whose settings are those of another experiment's has a row under its name there.
    """
    for trials in ([row for row in rows if row["variant"] == name], rows):
        by_seed = []
        for seed in report["seeds"]:
            rights = [row["right"].get(report["split"], {}) for row in trials if row["seed"] == seed]
            whole = [right for right in rights if {d: len(digits) for d, digits in right.items()} == report["examples"]]
            by_seed.append({str(right): right for right in whole}.values())
        for chosen in product(*by_seed):
            values = {d: np.array([[*map(int, right[d])] for right in chosen]) for d in report["examples"]}
            if all(np.isclose(values[d].mean(), accuracy) for d, accuracy in model["domains"].items()):
                return values
    raise LookupError(f"no rows of {name} have the accuracies of the report")


def made_again(report: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The report with today's intervals, tests and verdict."""
    rights = {
        kind: {name: right_of(rows, report, name, model) for name, model in report[kind].items()}
        for kind in ("teachers", "students")
    }
    new = {"teachers": {name: summary(values) for name, values in rights["teachers"].items()}}
    if "best" in report:
        return {**report, **new, "students": {name: summary(values) for name, values in rights["students"].items()}}
    if "minus_teacher" in report:
        new["minus_teacher"] = {
            name: next(
                gain.as_dict()
                for teacher in rights["teachers"].values()
                if np.isclose((gain := difference(rights["students"][name], teacher)).mean, lost["mean"])
            )
            for name, lost in report["minus_teacher"].items()
        }
    return {**report, **new, **compare(report["reference"], rights["students"])}


def main() -> None:
    rows = [row for path in sorted(EVIDENCE.glob("*.jsonl")) for row in _rows(path)]
    for path in sorted(EVIDENCE.glob("*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        if "students" in report:
            write_json(path, made_again(report, rows))
            print(path.name)


def _rows(path: Path) -> list[dict[str, Any]]:
    """Those of trials; a few files hold notes of other scripts."""
    first = json.loads(path.read_text(encoding="utf-8").partition("\n")[0])
    return [*ResultsStore(path).rows.values()] if "variant" in first else []


if __name__ == "__main__":
    main()
