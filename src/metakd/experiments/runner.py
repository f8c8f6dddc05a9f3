"""Grids of methods, seeds and settings on one corpus: run cell by cell, resumed at the cell, compared at the end."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from metakd.config.settings import Settings
from metakd.data.dataset import MultiDomainDataset, folder_name
from metakd.evaluation.statistics import Values, as_dict, compare, difference, summary
from metakd.experiments.results_store import ResultsStore
from metakd.experiments.tables import markdown
from metakd.experiments.trial import Trial
from metakd.experiments.variants import EXPERIMENTS, Variant, with_tuned_settings
from metakd.models.student import check_models
from metakd.utils.artifacts import RUN_FILE, fingerprint, write_json, write_text
from metakd.utils.console import console, notice
from metakd.utils.errors import InputError
from metakd.utils.locks import refuse_foreign, waiting_lock

ROWS_FILE, LOCK_FILE = "rows.jsonl", "experiment.lock"
STUDENTS = ("students", "shared_student-*")
LONGEST_LIST = 150  # characters of the names of lines in that of a report; a checksum stands for longer ones


def experiment(
    name: str,
    data: MultiDomainDataset,
    settings: Settings,
    folder: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    only: Sequence[str] = (),
    split: str | None = None,
    reference: str | None = None,
    tuned: Path | None = None,
    merge: Sequence[Path] = (),
) -> dict[str, Any]:
    """Run every cell of the experiment that `folder` (or a file of `merge`) has no row of, and compare them.

    `only` names lines of the experiment, if not all are wanted; `split` is what they are scored on (by default test,
    or dev where there is none, and for `tune`); `reference` is the line that all others are held against (by default
    the first); `tuned` is what `tune` wrote, whose best trial each line of `main` then takes. Writes NAME.json and
    NAME.md, named by `report_name`.
    """
    if (folder / RUN_FILE).exists():
        raise InputError(f"{folder}: holds a run, whose students would go; choose another --output")
    refuse_foreign(folder, (ROWS_FILE, LOCK_FILE), "experiment")
    scored = split or ("dev" if name == "tune" else data.scored_split or "test")
    best = _read_best(tuned, name, data, scored) if tuned else None
    variants = _variants(name, settings, data, only, best)
    _check(name, variants, data, scored, seeds, reference)
    trials = [Trial.of(variant, seed, settings, data, folder) for seed in seeds for variant in variants]
    _check_methods(name, trials)
    with waiting_lock(folder / LOCK_FILE, "runs an experiment here"):
        rows = ResultsStore(folder / ROWS_FILE)
        for path in merge:
            rows.merge(path, set[str]().union(*(trial.keys for trial in trials)))
        _run(trials, rows)
        _remove(folder, "teacher_cache-*", "checkpoints", *STUDENTS)
        results = _results(name, data, trials, rows, scored, reference or variants[0].name)
        results |= {"tuned": {variant.name: dict(variant.tuned_settings) for variant in variants}} if tuned else {}
        stem = report_name(name, only, split, reference, tuned)
        write_json(folder / f"{stem}.json", results)
        write_text(folder / f"{stem}.md", markdown(results))
    return results


def report_name(
    name: str,
    only: Sequence[str] = (),
    split: str | None = None,
    reference: str | None = None,
    tuned: Path | None = None,
) -> str:
    """Of the two files that an experiment writes, without their suffixes: what was asked for is part of it.

    Not so data, seeds and settings: a report can be made again from its rows, without training.
    """
    parts = [name]
    if only:
        lines = "+".join(map(folder_name, only))
        parts.append(f"only-{lines if len(lines) <= LONGEST_LIST else fingerprint(lines)[:12]}")
    if tuned:
        parts.append("tuned")
    if split:
        parts.append(f"on-{split}")
    if reference:
        parts.append(f"against-{folder_name(reference)}")
    return "-".join(parts)


def _run(trials: Sequence[Trial], rows: ResultsStore) -> None:
    """Every cell without a row, one after the other."""
    missing = [trial for trial in trials if not trial.keys <= set(rows.found)]
    spent: list[float] = []
    for number, (trial, following) in enumerate(zip_longest(missing, missing[1:])):
        if trial.keys <= set(rows.found):  # another variant came to the same
            continue
        left = f", about {np.mean(spent) * (len(missing) - number) / 60:.0f} minutes left" if spent else ""
        title = f"cell {number + 1} of {len(missing)}: {trial.variant.name}, seed {trial.seed}{left}"
        console.print(title, style="bold", highlight=False)
        started = time.monotonic()
        for row in trial.rows(set(rows.found), following.caches if following else ()):
            rows.add(row)
        _remove(rows.path.parent, *STUDENTS)  # what is known of them is in their row
        spent.append(time.monotonic() - started)


def _remove(folder: Path, *patterns: str) -> None:
    for path in [path for pattern in patterns for path in folder.glob(pattern)]:
        shutil.rmtree(path, ignore_errors=True)


def _variants(
    name: str,
    settings: Settings,
    data: MultiDomainDataset,
    only: Sequence[str],
    best: Mapping[str, dict[str, Any]] | None,
) -> list[Variant]:
    """Those of the experiment that are asked for, with what `tune` found best of each."""
    if name not in EXPERIMENTS:
        raise InputError(f"experiment {name!r}: there are {', '.join(EXPERIMENTS)}")
    variants = EXPERIMENTS[name](settings)
    lines = list(dict.fromkeys(v.tunes or v.name for v in variants))
    faults = [f"only = {line!r}: the experiment has {', '.join(lines)}" for line in only if line not in lines]
    faults += [f"only = {line!r}: named twice" for line, count in Counter(only).items() if count > 1]
    chosen = [v for v in variants if not only or (v.tunes or v.name) in only]
    untuned = [v.name for v in chosen if best is not None and v.name not in best]
    if untuned:
        faults.append(f"tuned: no trial of {', '.join(untuned)}; run `tune` for them, or leave them out by --only")
    if len(data.domains) < 2 and any(v.scope == "unseen" for v in variants):
        faults.append(f"{data.name}: one domain only, so no teacher can have learnt from others")
    if faults:
        raise InputError.collect(f"experiment {name}", faults)
    if best is None:
        return chosen
    return [
        next(w for w in with_tuned_settings(EXPERIMENTS[name], settings, best[v.name]) if w.name == v.name)
        for v in chosen
    ]


def _check(
    name: str, variants: Sequence[Variant], data: MultiDomainDataset, split: str, seeds: Sequence[int], against: Any
) -> None:
    """One InputError for all that keeps the variants from being compared."""
    faults = []
    if not seeds or len(set(seeds)) != len(seeds):
        faults.append("seeds: name at least one, and each once")
    if against is not None and name == "tune":
        faults.append(f"reference = {against!r}: trials are chosen from, not held against one of them; leave it out")
    elif against is not None and against not in {v.name for v in variants}:
        faults.append(f"reference = {against!r}: the experiment has {', '.join(v.name for v in variants)}")
    scored = Counter(e.domain for e in data.splits.get(split, []))
    few = [domain for domain in data.domains if scored[domain] < 2]
    if split not in ("dev", "test"):
        faults.append(f"split = {split!r}: dev, to choose by, or test, to report")
    elif name == "tune" and split != "dev":
        faults.append(f"split = {split!r}: trials are chosen on dev, so that test can be reported on; leave it out")
    elif not scored:
        faults.append(f"{data.name}: nothing to score on; add {split}.jsonl, or rows for it by --cut")
    elif few:
        faults.append(f"{data.name}: intervals need two rows of {split} a domain; there are fewer of {', '.join(few)}")
    if faults:
        raise InputError.collect(f"experiment {name}", faults)


def _check_methods(name: str, trials: Sequence[Trial]) -> None:
    """One InputError that names every line whose method, models or data cannot be had."""
    faults: dict[str, None] = {}
    for trial in trials:
        for run, _ in trial.parts:
            try:
                check_models(run.settings)
                _stages = run.stages
            except InputError as error:
                faults[f"{trial.variant.name}: {error}; or leave that line out by --only"] = None
    if faults:
        raise InputError.collect(f"experiment {name}", [*faults])


def _read_best(path: Path, name: str, data: MultiDomainDataset, split: str) -> dict[str, dict[str, Any]]:
    """What each line's best trial sets, as `tune` wrote it; InputError where it is not for this experiment."""
    if name != "main" and not name.startswith("scarce"):
        raise InputError("--tuned: for main and scarce-...; give other experiments their settings by flags or --config")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        best = {line: dict(tuned_settings["settings"]) for line, tuned_settings in found["best"].items()}
        made_on = found["data_fingerprint"], found["split"]
    except OSError as error:
        raise InputError(f"--tuned {path}: cannot be read ({error.strerror})") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise InputError(f"--tuned {path}: not what `metakd experiment tune` writes, with its best trials") from None
    if made_on[0] != data.fingerprint:
        raise InputError(f"--tuned {path}: tuned on other data, or cut otherwise; repeat --data and --cut of `tune`")
    if made_on[1] == split:
        raise InputError(f"--tuned {path}: chosen on {split}, which cannot be reported on too; cut a split for each")
    return best


def _results(
    name: str, data: MultiDomainDataset, trials: Sequence[Trial], rows: ResultsStore, split: str, reference: str
) -> dict[str, Any]:
    students: dict[str, list[dict[str, Any]]] = {}
    teachers: dict[str, dict[int, dict[str, Any]]] = {}
    for trial in trials:
        students.setdefault(trial.variant.name, []).append(rows.found[trial.students])
        if trial.teachers:
            teachers.setdefault(trial.variant.teacher, {})[trial.seed] = rows.found[trial.teachers]
    right = {variant: _values(own, split) for variant, own in students.items()}
    taught = {variant: _values([*own.values()], split) for variant, own in teachers.items()}
    first = students[reference][0]
    used = chain(*students.values(), *(own.values() for own in teachers.values()))
    return {
        "experiment": name,
        "data": data.name,
        "split": split,
        "data_fingerprint": data.fingerprint,
        "examples": {domain: len(marks) for domain, marks in first["right"][split].items()},
        "seeds": [row["seed"] for row in students[reference]],
        **_origin([*used]),
        "teachers": {variant: summary(values) for variant, values in taught.items()},
        **_compared([trial.variant for trial in trials], right, taught, reference),
        "checks": {variant: found for variant, own in students.items() if (found := _mean_checks(own))},
    }


def _compared(
    variants: Sequence[Variant], right: Mapping[str, Values], taught: Mapping[str, Values], reference: str
) -> dict[str, Any]:
    """Students' accuracies and differences; of trials the best alone, since what is chosen by is not tested on."""
    if candidates := [variant for variant in variants if variant.tunes]:
        found = {variant: summary(values) for variant, values in right.items()}
        return {"students": found, "best": _best(candidates, found)}
    jobs = {variant.name: taught[variant.teacher] for variant in variants if variant.teacher}
    lost = {line: as_dict(difference(right[line], teacher)) for line, teacher in jobs.items()}
    return {"minus_teacher": lost, **compare(reference, right)}


def _mean_checks(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The mean over seeds of what weights and domain loss came to."""
    found = [row.get("checks", {}) for row in rows]
    return {name: float(np.mean([own[name] for own in found])) for name in found[0] if all(name in f for f in found)}


def _best(candidates: Sequence[Variant], students: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Of each line, the names of its trials, and the best of them, the first of equals, with what it sets."""
    lines: dict[str, dict[str, Variant]] = {}
    for variant in candidates:
        lines.setdefault(variant.tunes, {})[variant.name] = variant
    found = {}
    for line, own in lines.items():
        best = max(own, key=lambda name: students[name]["mean"])
        found[line] = {"trial": best, "settings": dict(own[best].tuned_settings), "trials": [*own]}
    return found


def _origin(rows: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Versions of metakd, with commits, and processors or GPUs that rows come from; says so where they differ."""
    made = [row["environment"] for row in rows]
    found = {
        "made_with": {f"{own['versions'].get('metakd')} {own['commit'] or ''}" for own in made},
        "made_on": {own.get("gpu") or own.get("processor") or "unknown" for own in made},
    }
    for name, told in (("made_with", "with different versions of metakd"), ("made_on", "on different machines")):
        if len(found[name]) > 1:
            notice(f"rows were made {told}: {', '.join(sorted(found[name]))}")
    return {name: sorted(values) for name, values in found.items()}


def _values(rows: Sequence[dict[str, Any]], split: str) -> Values:
    """What was right of each domain, (seeds, examples)."""
    marks = [row["right"][split] for row in rows]
    return {d: np.array([[int(mark) for mark in own[d]] for own in marks]) for d in marks[0]}
