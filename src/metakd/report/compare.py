"""Several runs side by side, on the examples that all of them were scored on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metakd.evaluation.statistics import compare, summary
from metakd.evaluation.tables import escaped
from metakd.experiments import tables
from metakd.experiments.tables import table
from metakd.models.hub import public_name
from metakd.report.facts import Findings
from metakd.utils.errors import InputError


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
    if not (rights := {name: run.rights["student"] for name, run in in_order.items()})[first_name]:
        raise InputError("compare: intervals need two scored examples of a domain")
    return {
        "experiment": "compare",
        "data": public_name(first.run["data"] or "tables in memory"),
        "split": first.results["split"],
        "examples": {domain: own.shape[1] for domain, own in rights[first_name].items()},
        "seeds": sorted({run.run["settings"]["seed"] for run in runs.values()}),
        "teachers": {f"{name}, meta-teacher": summary(run.rights["meta_teacher"]) for name, run in in_order.items()},
        **compare(first_name, rights),
        "checks": {},
        "costs": {name: _costs(run) for name, run in runs.items()},
        "settings": _differing({name: run.run["settings"] for name, run in runs.items()}),
    }


def _costs(findings: Findings) -> dict[str, float]:
    """Of a student on average, and of the whole run."""
    student = findings.results["average"]["student"]
    minutes = sum(findings.results["seconds"].values()) / 60
    return {"MB": student["bytes"] / 1e6, "ms": student["latency_ms"]["median"], "minutes": minutes}


def _differing(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Settings that are not the same in all runs: name -> run -> value."""
    names = dict.fromkeys(name for own in settings.values() for name in own)
    values = {name: {run: str(own.get(name)) for run, own in settings.items()} for name in names}
    return {name: own for name, own in values.items() if len(set(own.values())) > 1}


def markdown(found: Mapping[str, Any]) -> str:
    """Scores and tests, what a student costs, and what was set otherwise."""
    names = list(found["costs"])
    lines = [["", *map(escaped, names)], ["---", *["---:"] * len(names)]]
    for cost, told in {"MB": "MB of a student", "ms": "ms for one text", "minutes": "minutes of work"}.items():
        lines.append([told, *(f"{found['costs'][name][cost]:.1f}" for name in names)])
    lines += [[f"`{key}`", *(escaped(own[name]) for name in names)] for key, own in found["settings"].items()]
    told = "\nEach run has one seed. What they cost, and the settings that differ:\n\n"
    return tables.markdown(found) + told + table(lines)


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, or whole paths where two are alike."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _scored(findings: Findings) -> set[tuple[str, str, str]]:
    return {(row["id"], row["domain"], row["label"]) for row in findings.rows}
