"""What λ and L_tkd change in Meta-KD's students, each with the other and without it, on average; and what passes do.

    python benchmarks/factors.py

Reads, from benchmarks/results/evidence, the four variants that have both, one or neither (main-windows.jsonl: three
passes; made by `metakd experiment main` and `ablation`, see docs/evidence-more.md), the two that have both or neither
by the defaults (defaults.jsonl), and `meta_kd` with ten passes (longer.jsonl); writes factors.json beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metakd.evaluation.statistics import Values, estimate, points
from metakd.evaluation.tables import as_markdown
from metakd.experiments.results_store import ResultsStore
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import environment

RESULTS = Path(__file__).parent / "results" / "evidence"
VARIANTS = {  # (with λ, with L_tkd)
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
    return {d: np.sum([sign[s] * correct[d] for s, correct in trials.items()], axis=0) / 2 for d in trials[True, True]}


def correct_of(file: str, variant: str, split: str) -> Values:
    """1 where a variant is right and 0 where it is wrong, of each domain: (S, N_k)."""
    rows = ResultsStore(RESULTS / file).rows.values()
    right = {row["seed"]: row["right"][split] for row in rows if row["variant"] == variant}
    return {d: np.array([[int(digit) for digit in right[seed][d]] for seed in SEEDS]) for d in right[SEEDS[0]]}


def described(values: Values) -> dict[str, Any]:
    by_seed = np.mean([correct.mean(1) for correct in values.values()], axis=0)
    return estimate(values).as_dict() | {"by_seed": by_seed.tolist()}


def shown(splits: Mapping[str, Any]) -> str:
    rows = [["", *splits]]
    rows += [[n, *(f"{100 * split['lines'][n]:.1f}" for split in splits.values())] for n in VARIANTS.values()]
    rows += [
        [f"{n}: with it minus without", *(points(split["effects"][n]) for split in splits.values())] for n in FACTORS
    ]
    rows += [[name, *(points(split["effects"][name]) for split in splits.values())] for name in (BOTH, PASSES)]
    return as_markdown(rows)


def main() -> None:
    splits: dict[str, Any] = {}
    for split in ("dev", "test"):
        trials = {state: correct_of("main-windows.jsonl", variant, split) for state, variant in VARIANTS.items()}
        five, without = (correct_of("defaults.jsonl", VARIANTS[state, state], split) for state in (True, False))
        both = {d: five[d] - without[d] - (trials[True, True][d] - trials[False, False][d]) for d in five}
        ten = correct_of("longer.jsonl", VARIANTS[True, True], split)
        effects = {name: described(effect(trials, place)) for place, name in enumerate(FACTORS)}
        splits[split] = {
            "lines": {
                VARIANTS[s]: float(np.mean([v.mean() for v in correct.values()])) for s, correct in trials.items()
            },
            "effects": effects | {BOTH: described(both), PASSES: described({d: ten[d] - five[d] for d in five})},
        }
    write_json(RESULTS / "factors.json", {"splits": splits, "environment": environment()})
    print(shown(splits))


if __name__ == "__main__":
    main()
