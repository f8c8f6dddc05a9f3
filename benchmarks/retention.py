"""What students keep of their teacher's accuracy on Amazon's reviews, cross-validated.

    python benchmarks/retention.py --data DIR --work FOLDER [--folds 0 1 2 3 4]

DIR holds the Multi-Domain Sentiment Dataset (train and dev), whose rows are cut into five folds, by domain and label
and with each text in one of them. Fold k is scored once, by the models of seed k, which learn from the four others by
the default settings.

Adds a line for each model and fold to benchmarks/results/evidence/retention.jsonl, and writes what they come to into
retention.json beside it: accuracies, shares kept, and differences paired by example with two 95 % intervals: for other
examples of these models, and, by the spread of the folds (t distribution), for other examples, data and seeds.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.model_selection import StratifiedGroupKFold

from metakd import Settings
from metakd.artifacts import write_json
from metakd.cells import Cell
from metakd.comparison import LEVEL, difference, summary
from metakd.domains import MultiDomainDataset, load_dataset
from metakd.grids import size
from metakd.rows import Rows

RESULTS = Path(__file__).parent / "results" / "evidence"
FOLDS = 5
LINES = ("3 layers", "2 layers")


def fold(data: MultiDomainDataset, number: int) -> MultiDomainDataset:
    """Fold `number` as test, the others as train."""
    rows = data.cut_anew(0, 0).train
    groups = {e.text: place for place, e in enumerate(rows)}
    cutter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    classes = [f"{e.domain} {e.label}" for e in rows]
    learnt, scored = [*cutter.split(rows, classes, [groups[e.text] for e in rows])][number]
    return replace(data, splits={"train": [rows[i] for i in learnt], "test": [rows[i] for i in scored]})


def measured(found_rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What the lines of all folds that have every model come to."""
    right = defaultdict[str, dict[int, dict[str, str]]](dict)
    for row in found_rows:
        right[row["variant"]][row["seed"]] = row["right"]["test"]
    folds = sorted(set.intersection(*(set(own) for own in right.values())))
    domains = [*right["meta teacher"][folds[0]]]

    def values(name: str) -> dict[str, NDArray[Any]]:
        """(1, N) for each domain: what was right of all folds, one after the other."""
        return {d: np.array([[int(mark) for k in folds for mark in right[name][k][d]]]) for d in domains}

    teacher = summary(values("meta teacher"))
    found: dict[str, Any] = {"folds": folds, "examples": {d: v.size for d, v in values("meta teacher").items()}}
    for name in ("meta teacher", *LINES):
        own = summary(values(name))
        found[name] = {k: own[k] for k in ("mean", "interval", "domains")}
        by_fold = [[marks.count("1") / len(marks) for marks in right[name][k].values()] for k in folds]
        found[name]["by_fold"] = [float(np.mean(shares)) for shares in by_fold]
        if name != "meta teacher":
            lost = difference(values(name), values("meta teacher"))
            by_fold = np.subtract(found[name]["by_fold"], found["meta teacher"]["by_fold"])
            found[name] |= {
                "kept": own["mean"] / teacher["mean"],
                "minus_teacher": [lost.mean, lost.low, lost.high],
                "minus_teacher_over_folds": [*map(float, over_folds(by_fold))],
            }
    return found


def over_folds(values: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval of the mean of K values: (K,)."""
    error = values.std(ddof=1) / np.sqrt(len(values))
    low, high = stats.t.interval(LEVEL, len(values) - 1, values.mean(), error)
    return low, high


def table(found: Mapping[str, Any]) -> str:
    heads = ["", *(f"fold {k}" for k in found["folds"]), "all", "kept", "minus the teacher", "over folds"]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for name in ("meta teacher", *LINES):
        own = found[name]
        line = [name, *(f"{100 * share:.1f}" for share in own["by_fold"]), f"{100 * own['mean']:.1f}"]
        if "kept" in own:
            lost, low, high = (100 * value for value in own["minus_teacher"])
            line += [f"{100 * own['kept']:.1f} %", f"{lost:+.1f}, {low:+.1f} to {high:+.1f}"]
            line.append("{:+.1f} to {:+.1f}".format(*(100 * end for end in own["minus_teacher_over_folds"])))
        lines.append(line + [""] * (len(heads) - len(line)))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--folds", type=int, nargs="+", default=[*range(FOLDS)], choices=range(FOLDS))
    asked = parser.parse_args()
    settings = Settings()
    variants = [replace(v, teacher="meta teacher") for v in size(settings) if v.name in LINES]
    data, rows = load_dataset(asked.data), Rows(RESULTS / "retention.jsonl")
    cells = {k: [Cell.of(v, k, settings, fold(data, k), asked.work) for v in variants] for k in range(FOLDS)}
    for cell in (cell for number in asked.folds for cell in cells[number]):
        if not cell.keys <= set(rows.found):
            for row in cell.rows(set(rows.found), cell.caches):
                rows.add(row)
    keys = set[str]().union(*(cell.keys for own in cells.values() for cell in own))
    found = measured(rows.found[key] for key in sorted(keys & set(rows.found)))
    write_json(RESULTS / "retention.json", found)
    print(table(found))


if __name__ == "__main__":
    main()
