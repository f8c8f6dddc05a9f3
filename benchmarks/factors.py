"""What λ and L_tkd change in Meta-KD's students: each with the other and without it, on average.

    python benchmarks/factors.py

Reads the four lines that have both, one or neither from benchmarks/results/evidence/main-windows.jsonl (made by
`metakd experiment main` and `ablation`, see docs/evidence.md), and writes factors.json beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metakd.artifacts import environment, write_json
from metakd.comparison import Values, as_dict, estimate, points, table

RESULTS = Path(__file__).parent / "results" / "evidence"
LINES = {  # (with λ, with L_tkd)
    (True, True): "meta_kd",
    (True, False): "without feature",
    (False, True): "without expertise weights",
    (False, False): "meta_teacher_kd",
}
FACTORS = ("λ", "L_tkd")
SEEDS = (0, 1, 2)


def effect(cells: Mapping[tuple[bool, bool], Values], factor: int) -> Values:
    """With the factor minus without it, of each domain (S, N_k): the mean over the other factor's two states."""
    sign = {state: 1 if state[factor] else -1 for state in cells}
    return {d: np.sum([sign[s] * own[d] for s, own in cells.items()], axis=0) / 2 for d in cells[True, True]}


def described(values: Values) -> dict[str, Any]:
    by_seed = np.mean([own.mean(1) for own in values.values()], axis=0)
    return as_dict(estimate(values)) | {"by_seed": by_seed.tolist()}


def shown(found: Mapping[str, Any]) -> str:
    lines = [["", *found], ["---", *["---:"] * len(found)]]
    lines += [[n, *(f"{100 * own['lines'][n]:.1f}" for own in found.values())] for n in LINES.values()]
    lines += [[f"{n}: with it minus without", *(points(own["effects"][n]) for own in found.values())] for n in FACTORS]
    return table(lines)


def main() -> None:
    rows = map(json.loads, (RESULTS / "main-windows.jsonl").read_text(encoding="utf-8").splitlines())
    known = {(row["variant"], row["seed"]): row["right"] for row in rows}
    found: dict[str, Any] = {}
    for split in ("dev", "test"):
        cells = {}
        for state, line in LINES.items():
            own = [known[line, seed][split] for seed in SEEDS]
            cells[state] = {d: np.array([[int(mark) for mark in right[d]] for right in own]) for d in own[0]}
        found[split] = {
            "lines": {LINES[s]: float(np.mean([v.mean() for v in own.values()])) for s, own in cells.items()},
            "effects": {name: described(effect(cells, place)) for place, name in enumerate(FACTORS)},
        }
    write_json(RESULTS / "factors.json", {"splits": found, "environment": environment()})
    print(shown(found))


if __name__ == "__main__":
    main()
