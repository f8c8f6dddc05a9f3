"""Several runs side by side, on the examples that all of them were scored on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metakd.comparison import compare, summary
from metakd.errors import InputError
from metakd.report.facts import Findings


def compare_runs(folders: Sequence[Path]) -> dict[str, Any]:
    """The students of each run held against those of the first, paired by example [comparison.compare].

    Raises InputError where the runs were not scored on the same examples.
    """
    if len(folders) < 2 or len(set(folders)) < len(folders):
        raise InputError("compare: name at least two runs, and each once")
    runs = dict(zip(_names(folders), map(Findings.read, folders), strict=True))
    first_name, first = next(iter(runs.items()))
    scored = _scored(first)
    faults = [
        f"{name}: {len(_scored(run) ^ scored)} scored examples differ from those of {first_name} in id, domain or label"
        for name, run in runs.items()
        if _scored(run) != scored
    ]
    if faults:
        raise InputError.collect("compare needs runs that were scored on the same examples", faults)
    in_order = {name: run.ordered() for name, run in runs.items()}
    if not (rights := {name: run.rights("student") for name, run in in_order.items()})[first_name]:
        raise InputError("compare: intervals need two scored examples of a domain")
    return {
        "experiment": "compare",
        "data": first.run["data"],
        "split": first.results["split"],
        "examples": {domain: own.shape[1] for domain, own in rights[first_name].items()},
        "seeds": sorted({run.run["settings"]["seed"] for run in runs.values()}),
        "teachers": {f"{name}, meta-teacher": summary(run.rights("meta_teacher")) for name, run in in_order.items()},
        **compare(first_name, rights),
        "checks": {},
    }


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, or whole paths where two are alike."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _scored(findings: Findings) -> set[tuple[str, str, str]]:
    return {(row["id"], row["domain"], row["label"]) for row in findings.rows}
