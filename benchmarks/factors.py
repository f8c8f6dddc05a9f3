"""What λ and L_tkd change in Meta-KD's students, each with the other and without it, on average; and what passes do.

    python benchmarks/factors.py

Reads, from benchmarks/results/evidence, the four lines that have both, one or neither (main-windows.jsonl: three
passes; made by `metakd experiment main` and `ablation`, see docs/evidence-more.md), the two that have both or neither
by the defaults (defaults.jsonl), and `meta_kd` with ten passes (longer.jsonl); writes factors.json beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metakd.evaluation.statistics import Values, as_dict, estimate, points
from metakd.experiments.results_store import ResultsStore
from metakd.experiments.tables import table
from metakd.utils.artifacts import write_json
from metakd.utils.environment import environment

RESULTS = Path(__file__).parent / "results" / "evidence"
LINES = {  # (with λ, with L_tkd)
    (True, True): "meta_kd",
    (True, False): "without feature",
    (False, True): "without expertise weights",
    (False, False): "meta_teacher_kd",
}
FACTORS = ("λ", "L_tkd")
BOTH = "both, by the defaults minus with three passes"
PASSES = "meta_kd, ten passes minus the defaults' five"
SEEDS = (0, 1, 2)


def effect(trials: Mapping[tuple[bool, bool], Values], factor: int) -> Values:
    """With the factor minus without it, of each domain (S, N_k): the mean over the other factor's two states."""
    sign = {state: 1 if state[factor] else -1 for state in trials}
    return {d: np.sum([sign[s] * own[d] for s, own in trials.items()], axis=0) / 2 for d in trials[True, True]}


def marks(file: str, line: str, split: str) -> Values:
    """What a line of a file of rows got right of each domain: (S, N_k)."""
    rows = ResultsStore(RESULTS / file).found.values()
    right = {row["seed"]: row["right"][split] for row in rows if row["variant"] == line}
    return {d: np.array([[int(mark) for mark in right[seed][d]] for seed in SEEDS]) for d in right[SEEDS[0]]}


def described(values: Values) -> dict[str, Any]:
    by_seed = np.mean([own.mean(1) for own in values.values()], axis=0)
    return as_dict(estimate(values)) | {"by_seed": by_seed.tolist()}


def shown(found: Mapping[str, Any]) -> str:
    lines = [["", *found], ["---", *["---:"] * len(found)]]
    lines += [[n, *(f"{100 * own['lines'][n]:.1f}" for own in found.values())] for n in LINES.values()]
    lines += [[f"{n}: with it minus without", *(points(own["effects"][n]) for own in found.values())] for n in FACTORS]
    lines += [[name, *(points(own["effects"][name]) for own in found.values())] for name in (BOTH, PASSES)]
    return table(lines)


def main() -> None:
    found: dict[str, Any] = {}
    for split in ("dev", "test"):
        trials = {state: marks("main-windows.jsonl", line, split) for state, line in LINES.items()}
        five, without = (marks("defaults.jsonl", LINES[state, state], split) for state in (True, False))
        both = {d: five[d] - without[d] - (trials[True, True][d] - trials[False, False][d]) for d in five}
        ten = marks("longer.jsonl", LINES[True, True], split)
        effects = {name: described(effect(trials, place)) for place, name in enumerate(FACTORS)}
        found[split] = {
            "lines": {LINES[s]: float(np.mean([v.mean() for v in own.values()])) for s, own in trials.items()},
            "effects": effects | {BOTH: described(both), PASSES: described({d: ten[d] - five[d] for d in five})},
        }
    write_json(RESULTS / "factors.json", {"splits": found, "environment": environment()})
    print(shown(found))


if __name__ == "__main__":
    main()
