"""What students keep of their teacher's accuracy on Amazon's reviews, cross-validated.

    python benchmarks/retention.py --data DIR --work FOLDER [--folds 0 1 2 3 4] [--expertise soft none] [--rows FILE]

DIR holds the Multi-Domain Sentiment Dataset (train and dev), whose rows are cut into five folds, by domain and label
and with each text in one of them. Fold k is scored once, by the models of seed k, which learn from the four others by
the default settings, with the expertise weights λ and without them.

Adds a row for each model and fold to FILE (benchmarks/results/evidence/retention.jsonl), and writes what they come to
into a .json beside it, for each kind of λ: accuracies, shares kept, and differences paired by example with two 95 %
intervals: for other examples of these models, and, by the spread of the folds (t distribution), for other examples,
data and seeds. With FILE = retention-gpu.jsonl, whose rows benchmarks/grids.py made, and no folds (`--folds`), it
trains nothing and writes retention-gpu.json.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.model_selection import StratifiedGroupKFold

from metakd import Settings
from metakd.data.dataset import MultiDomainDataset, load_dataset
from metakd.evaluation.statistics import LEVEL, difference, summary
from metakd.experiments.results_store import ResultsStore
from metakd.experiments.trial import Trial
from metakd.experiments.variants import size
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import environment

ROWS = Path(__file__).parent / "results" / "evidence" / "retention.jsonl"
FOLDS = 5
VARIANTS = ("3 layers", "2 layers")
KINDS: tuple[Literal["soft", "none"], ...] = ("soft", "none")  # of expertise weights λ


def fold(data: MultiDomainDataset, number: int) -> MultiDomainDataset:
    """Fold `number` as test, the others as train."""
    rows = data.resplit(0, 0).train
    groups = {e.text: place for place, e in enumerate(rows)}
    cutter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    classes = [f"{e.domain} {e.label}" for e in rows]
    learnt, scored = [*cutter.split(rows, classes, [groups[e.text] for e in rows])][number]
    return replace(data, splits={"train": [rows[i] for i in learnt], "test": [rows[i] for i in scored]})


def trials(data: MultiDomainDataset, settings: Settings, number: int, folder: Path) -> list[Trial]:
    """A trial for each of VARIANTS on fold `number`, with a row for the teacher as well."""
    variants = [replace(v, teacher="meta teacher") for v in size(settings) if v.name in VARIANTS]
    return [Trial.of(variant, number, settings, fold(data, number), folder) for variant in variants]


Right = dict[str, dict[int, dict[str, str]]]  # variant -> fold -> domain -> 1 or 0 for each example


def right_of(rows: Iterable[Mapping[str, Any]]) -> Right:
    """What the models of each fold got right."""
    right = defaultdict[str, dict[int, dict[str, str]]](dict)
    for row in sorted(rows, key=lambda row: row["seed"]):
        right[row["variant"]][row["seed"]] = row["right"]["test"]
    return dict(right)


def whole_variants(right: Right) -> list[str]:
    """Those of VARIANTS that have every fold which the teacher has."""
    return [name for name in VARIANTS if name in right and right[name].keys() == right["meta teacher"].keys()]


def values(by_fold: Mapping[int, Mapping[str, str]], folds: Iterable[int]) -> dict[str, NDArray[Any]]:
    """(1, N) for each domain: what was right of these folds, one after the other."""
    domains = next(iter(by_fold.values()))
    return {d: np.array([[int(digit) for k in folds for digit in by_fold[k][d]]]) for d in domains}


def means(by_fold: Mapping[int, Mapping[str, str]], folds: Iterable[int]) -> list[float]:
    return [float(np.mean([digits.count("1") / len(digits) for digits in by_fold[k].values()])) for k in folds]


def minus(ours: Mapping[int, Mapping[str, str]], theirs: Mapping[int, Mapping[str, str]]) -> dict[str, Any]:
    """Accuracy less another's on the folds that both have, with both intervals."""
    folds = [k for k in ours if k in theirs]
    estimate = difference(values(ours, folds), values(theirs, folds))
    by_fold = np.subtract(means(ours, folds), means(theirs, folds))
    over = [*map(float, over_folds(by_fold))] if len(folds) > 1 else None
    return {"folds": folds, "mean": estimate.mean, "interval": estimate.interval, "over_folds": over}


def measured(right: Right) -> dict[str, Any]:
    """What the folds of one kind come to."""
    teacher = right["meta teacher"]
    folds = [*teacher]
    result: dict[str, Any] = {"folds": folds, "examples": {d: v.size for d, v in values(teacher, folds).items()}}
    for name in ("meta teacher", *whole_variants(right)):
        scores = summary(values(right[name], folds))
        by_fold = means(right[name], folds)
        result[name] = {k: scores[k] for k in ("mean", "interval", "domains")} | {"by_fold": by_fold}
        if name != "meta teacher":
            result[name] |= {
                "kept": scores["mean"] / result["meta teacher"]["mean"],
                "minus_teacher": minus(right[name], teacher),
            }
    return result


def over_folds(values: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval of the mean of K values, K > 1: (K,).

    Folds share most of what they learn from, so that their own variance over K would be too small: to 1 / K comes what
    is scored of a fold over what is learnt from (Nadeau and Bengio, 2003).
    """
    error = values.std(ddof=1) * np.sqrt(1 / len(values) + 1 / (FOLDS - 1))
    low, high = stats.t.interval(LEVEL, len(values) - 1, values.mean(), error)
    return low, high


def points(lost: Mapping[str, Any]) -> list[str]:
    """A difference in percentage points: with its interval, and over folds."""
    mean, low, high, *ends = (100 * v for v in (lost["mean"], *lost["interval"], *(lost["over_folds"] or ())))
    return [f"{mean:+.1f}, {low:+.1f} to {high:+.1f}", "{:+.1f} to {:+.1f}".format(*ends) if ends else "unknown"]


def table(result: Mapping[str, Any]) -> str:
    heads = ["", *(f"fold {k}" for k in result["folds"]), "all", "kept", "minus the teacher", "over folds"]
    rows = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for name in ("meta teacher", *(variant for variant in VARIANTS if variant in result)):
        scores = result[name]
        row = [name, *(f"{100 * share:.1f}" for share in scores["by_fold"]), f"{100 * scores['mean']:.1f}"]
        if "kept" in scores:
            row += [f"{100 * scores['kept']:.1f} %", *points(scores["minus_teacher"])]
        rows.append(row + [""] * (len(heads) - len(row)))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--folds", type=int, nargs="*", default=[*range(FOLDS)], choices=range(FOLDS))
    parser.add_argument("--expertise", nargs="+", default=[*KINDS], choices=KINDS)
    parser.add_argument("--rows", type=Path, default=ROWS)
    options = parser.parse_args()
    data, store = load_dataset(options.data), ResultsStore(options.rows)
    right = dict[str, Right]()
    for kind in KINDS:
        by_fold = {k: trials(data, Settings(expertise=kind), k, options.work) for k in range(FOLDS)}
        for trial in (trial for number in options.folds if kind in options.expertise for trial in by_fold[number]):
            if not trial.keys <= set(store.rows):
                for row in trial.rows(set(store.rows), trial.caches):
                    store.add(row)
        rows = ResultsStore(options.rows).rows.values()  # with what another process has added
        right[kind] = right_of(r for r in rows if r["variant"] == "meta teacher" or r["settings"]["expertise"] == kind)
    results = {kind: measured(of_kind) for kind, of_kind in right.items() if whole_variants(of_kind)}
    both = [name for name in VARIANTS if all(name in of_kind for of_kind in right.values())]
    results["none minus soft"] = {name: minus(right["none"][name], right["soft"][name]) for name in both}
    write_json(options.rows.with_suffix(".json"), {**results, "environment": environment()})
    for kind in KINDS:
        shown = table(results[kind]) if kind in results else "no variant has all folds of its teacher yet"
        print(f"\nλ {kind}\n\n{shown}")
    for name, lost in results["none minus soft"].items():
        print(f"\n{name}, none minus soft: {'; over folds '.join(points(lost))}")


if __name__ == "__main__":
    main()
