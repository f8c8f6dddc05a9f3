"""Several runs side by side, on the examples that all of them were scored on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metakd.evaluation.statistics import compare, summary
from metakd.evaluation.tables import BUSY_NOTE, as_markdown, escaped, milliseconds
from metakd.experiments import tables
from metakd.models.hub import public_name
from metakd.report.facts import Findings
from metakd.utils.errors import InputError, raise_faults

COSTS = {"MB": "MB of a student", "ms": "ms for one text", "minutes": "minutes of work"}


def compare_runs(folders: Sequence[Path]) -> dict[str, Any]:
    """The students of each run compared with those of the first, paired by example [statistics.compare].

    Raises InputError where the runs were not scored on the same examples.
    """
    if len(folders) < 2 or len(set(folders)) < len(folders):
        raise InputError("compare: name at least two runs, and each once")
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    runs = {name: Findings.read(folder).ordered() for name, folder in zip(names, folders, strict=True)}
    first = runs[names[0]]
    scored = {name: {_example(row) for row in run.rows} for name, run in runs.items()}
    faults = [
        f"{name} was scored on other data, {_data_of(run)}, than {names[0]}, {_data_of(first)}: "
        f"{len(rows & scored[names[0]])} of {len(rows)} examples are the same"
        for (name, run), rows in zip(runs.items(), scored.values(), strict=True)
        if rows != scored[names[0]]
    ]
    raise_faults("compare needs runs that were scored on the same examples", faults)
    if not (rights := {name: run.rights["student"] for name, run in runs.items()})[names[0]]:
        raise InputError("compare: intervals need two scored examples of a domain")
    return {
        "experiment": "compare",
        "data": public_name(first.run["data"] or "tables in memory"),
        "split": first.results["split"],
        "examples": {domain: values.shape[1] for domain, values in rights[names[0]].items()},
        "seeds": sorted({run.run["settings"]["seed"] for run in runs.values()}),
        "teachers": {f"{name}, meta-teacher": summary(run.rights["meta_teacher"]) for name, run in runs.items()},
        **compare(names[0], rights),
        "checks": {},
        "costs": {name: _costs(run) for name, run in runs.items()},
        "settings": _differing({name: run.run["settings"] for name, run in runs.items()}),
    }


def _example(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What makes a scored example the same: its id, domain and label, and how its texts begin."""
    return (row["id"], row["domain"], row["label"], *row["texts"])


def _data_of(findings: Findings) -> str:
    """Its data, and the seed that splits them if they are one file."""
    return f"{public_name(findings.run['data'] or 'tables in memory')} (seed {findings.run['settings']['seed']})"


def _costs(findings: Findings) -> dict[str, str]:
    """Of a student on average, and of the whole run."""
    student = findings.results["average"]["student"]
    minutes = sum(findings.results["seconds"].values()) / 60
    return {
        "MB": f"{student['bytes'] / 1e6:.1f}",
        "ms": milliseconds(student["latency_ms"]),
        "minutes": f"{minutes:.1f}",
    }


def _differing(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Settings that are not the same in all runs: name -> run -> value."""
    names = dict.fromkeys(name for values in settings.values() for name in values)
    by_run = {name: {run: str(values.get(name)) for run, values in settings.items()} for name in names}
    return {name: values for name, values in by_run.items() if len(set(values.values())) > 1}


def markdown(results: Mapping[str, Any]) -> str:
    """Scores and tests, what a student costs, and the settings that differ."""
    costs = results["costs"]
    rows = [["", *map(escaped, costs)]]
    rows += [[label, *(values[cost] for values in costs.values())] for cost, label in COSTS.items()]
    rows += [[f"`{key}`", *(escaped(values[name]) for name in costs)] for key, values in results["settings"].items()]
    caption = "\nEach run has one seed. What they cost, and the settings that differ:\n\n"
    note = f"\n{BUSY_NOTE}\n" if any("†" in values["ms"] for values in costs.values()) else ""
    return tables.markdown(results) + caption + as_markdown(rows) + note
