"""Runs an experiment trial by trial, continues after a stop, and compares the variants at the end."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from metakd.config.settings import Settings
from metakd.data.dataset import MultiDomainDataset
from metakd.data.schema import folder_name
from metakd.evaluation.statistics import Values, compare, difference, summary
from metakd.experiments.results_store import ResultsStore
from metakd.experiments.tables import markdown
from metakd.experiments.trial import Trial
from metakd.experiments.variants import EXPERIMENTS, Variant, with_tuned_settings
from metakd.models.model_checks import check_models
from metakd.runs.defaults import unfit
from metakd.utils.artifacts import RUN_FILE, fingerprint, write_json, write_text
from metakd.utils.console import console, notice
from metakd.utils.errors import InputError, raise_faults
from metakd.utils.locks import refuse_unrelated, waiting_lock

ROWS_FILE, LOCK_FILE = "rows.jsonl", "experiment.lock"
STUDENTS = ("students", "*shared_student-*")
LONGEST_LIST = 150  # characters of the variants' names in a report's name; a fingerprint replaces longer lists


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
    """Run every trial that has no row in `folder` yet, compare the variants, and write NAME.json and NAME.md.

    Args:
        only: The variants to compare, if not all.
        split: What they are scored on; by default test, or dev where there is no test, and for `tune`.
        reference: The variant that all others are compared with; by default the first.
        tuned: The JSON file of `tune`, whose chosen settings each variant of `main` takes.
        merge: Files of rows from other machines.

    NAME is made by `report_name`. Raises InputError for what cannot be compared.
    """
    if (folder / RUN_FILE).exists():
        raise InputError(f"{folder}: has a run, whose students would be deleted; choose another --output")
    refuse_unrelated(folder, (ROWS_FILE, LOCK_FILE), "experiment")
    scored = split or ("dev" if name == "tune" else data.scored_split or "test")
    variants = _variants(name, settings, data, only, _read_chosen(tuned, name, data, scored) if tuned else None)
    _check(name, variants, data, scored, seeds, reference)
    trials = [Trial.of(variant, seed, settings, data, folder) for seed in seeds for variant in variants]
    _check_methods(name, trials)
    with waiting_lock(folder / LOCK_FILE, "runs an experiment here"):
        store = ResultsStore(folder / ROWS_FILE)
        for path in merge:
            store.merge(path, set[str]().union(*(trial.keys for trial in trials)))
        _run(trials, store)
        _remove(folder, "teacher_cache-*", "checkpoints", *STUDENTS)
        results = _results(name, data, trials, store.rows, scored, reference or variants[0].name)
        if tuned:
            results["tuned"] = {variant.name: dict(variant.tuned_settings) for variant in variants}
        stem = report_name(name, only, split, reference, tuned)
        write_json(folder / f"{stem}.json", results)
        write_text(folder / f"{stem}.md", markdown(results))
    return results


def report_name(
    name: str, only: Sequence[str] = (), split: str | None = None, reference: str | None = None, tuned: object = None
) -> str:
    """The name, without suffix, of the two files that an experiment writes; it contains the options.

    Data, seeds and settings are not part of it: a report can be made again from its rows, without training.
    """
    variants = "+".join(map(folder_name, only))
    parts = [
        name,
        f"only-{variants if len(variants) <= LONGEST_LIST else fingerprint(variants)[:12]}" if only else "",
        "tuned" if tuned else "",
        f"on-{split}" if split else "",
        f"against-{folder_name(reference)}" if reference else "",
    ]
    return "-".join(filter(None, parts))


def _run(trials: Sequence[Trial], store: ResultsStore) -> None:
    """Run every trial that has no row, one after the other."""
    missing = [trial for trial in trials if not trial.keys <= {*store.rows}]
    seconds: list[float] = []
    for number, (trial, following) in enumerate(zip_longest(missing, missing[1:])):
        if trial.keys <= {*store.rows}:  # another variant with the same settings came before
            continue
        left = f", about {np.mean(seconds) * (len(missing) - number) / 60:.0f} minutes left" if seconds else ""
        title = f"trial {number + 1} of {len(missing)}: {trial.variant.name}, seed {trial.seed}{left}"
        console.print(title, style="bold", highlight=False)
        started = time.monotonic()
        for row in trial.rows({*store.rows}, following.caches if following else ()):
            store.add(row)
        _remove(store.path.parent, *STUDENTS)  # their row has all that the report needs
        seconds.append(time.monotonic() - started)


def _remove(folder: Path, *patterns: str) -> None:
    for path in [path for pattern in patterns for path in folder.glob(pattern)]:
        shutil.rmtree(path, ignore_errors=True)


def _variants(
    name: str, settings: Settings, data: MultiDomainDataset, only: Sequence[str], chosen: Mapping[str, Any] | None
) -> list[Variant]:
    """The wanted variants of the experiment, each with its settings of `chosen` if `tune` was run."""
    if name not in EXPERIMENTS:
        raise InputError(f"experiment {name!r}: choose one of {', '.join(EXPERIMENTS)}")
    variants = EXPERIMENTS[name](settings)
    names = list(dict.fromkeys(v.tunes or v.name for v in variants))
    faults = [f"--only = {wanted!r}: the experiment has {', '.join(names)}" for wanted in only if wanted not in names]
    faults += [f"--only = {wanted!r}: named twice" for wanted, count in Counter(only).items() if count > 1]
    variants = [v for v in variants if not only or (v.tunes or v.name) in only]
    if chosen is not None and (untuned := [v.name for v in variants if v.name not in chosen]):
        faults.append(f"--tuned: no settings for {', '.join(untuned)}; run `tune` for them, or use --only for others")
    if len(data.domains) < 2 and any(v.scope == "unseen" for v in variants):
        faults.append(f"{data.name}: only one domain, so no teacher can learn from others")
    if name == "unlabelled" and not data.unlabelled:
        faults.append("there is no text without labels; add --unlabelled, or choose unlabelled-20")
    raise_faults(f"experiment {name}", faults)
    if chosen is None:
        return variants
    tuned = [with_tuned_settings(EXPERIMENTS[name], settings, chosen[v.name]) for v in variants]
    return [next(t for t in group if t.name == v.name) for v, group in zip(variants, tuned, strict=True)]


def _check(
    name: str, variants: Sequence[Variant], data: MultiDomainDataset, split: str, seeds: Sequence[int], reference: Any
) -> None:
    """Raise one InputError for all that prevents the comparison."""
    faults, names = list[str](), [v.name for v in variants]
    if not seeds or len(set(seeds)) != len(seeds):
        faults.append("--seeds: name at least one, and each once")
    if reference is not None and name == "tune":
        faults.append(f"--reference = {reference!r}: `tune` has no reference; leave it out")
    elif reference is not None and reference not in names:
        faults.append(f"--reference = {reference!r}: the experiment has {', '.join(names)}")
    scored = Counter(e.domain for e in data.splits.get(split, []))
    few = [domain for domain in data.domains if scored[domain] < 2]
    if split not in ("dev", "test"):
        faults.append(f"--split = {split!r}: use dev to choose, or test to report")
    elif name == "tune" and split != "dev":
        faults.append(f"--split = {split!r}: `tune` chooses on dev, so that test stays for the report; leave it out")
    elif not scored:
        faults.append(f"{data.name}: no rows to score on; add {split}.jsonl, or give {split} a share in --cut")
    elif few:
        faults.append(f"{data.name}: intervals need two rows of {split} per domain; {', '.join(few)} has fewer")
    raise_faults(f"experiment {name}", faults)


def _check_methods(name: str, trials: Sequence[Trial]) -> None:
    """Raise one InputError for all variants whose method, models or data cannot be used."""
    faults: dict[str, None] = {}
    for trial in trials:
        for run, _ in trial.parts:
            try:
                check_models(run.settings, run.data.has_pairs)
                if unsuited := [*unfit(run.settings, run.data)]:
                    raise InputError("; ".join(unsuited))
                _ = run.stages
            except InputError as error:
                faults[f"{trial.variant.name}: {error}; or leave that variant out with --only"] = None
    raise_faults(f"experiment {name}", [*faults])


def _read_chosen(path: Path, name: str, data: MultiDomainDataset, split: str) -> dict[str, dict[str, Any]]:
    """The settings that `tune` chose for each variant; InputError if they are not for this experiment."""
    if name != "main" and not name.startswith("scarce"):
        raise InputError("--tuned: only for main and scarce-...; set other experiments with flags or --config")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        chosen = {variant: _checked(best["settings"], path) for variant, best in results["best"].items()}
        tuned_data, tuned_split = results["data_fingerprint"], results["split"]
    except OSError as error:
        raise InputError(f"--tuned {path}: cannot be read ({error.strerror})") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise InputError(f"--tuned {path}: not a result of `metakd experiment tune`, with chosen settings") from None
    if tuned_data != data.fingerprint:
        raise InputError(f"--tuned {path}: tuned on other data or another cut; use the --data and --cut of `tune`")
    if tuned_split == split:
        raise InputError(f"--tuned {path}: chosen on {split}, so report on another split; make both with --cut")
    return chosen


def _checked(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Some settings of a file, as `Settings` has them; InputError for those that cannot be used."""
    settings = Settings.build(values, f"--tuned {path}")
    return {name: getattr(settings, name) for name in values}


def _results(
    name: str, data: MultiDomainDataset, trials: Sequence[Trial], rows: Mapping[str, Any], split: str, reference: str
) -> dict[str, Any]:
    """The content of NAME.json, from the rows of all trials."""
    students: dict[str, list[dict[str, Any]]] = {}
    teachers: dict[str, dict[int, dict[str, Any]]] = {}  # by name and seed
    for trial in trials:
        students.setdefault(trial.variant.name, []).append(rows[trial.students])
        if trial.teachers:
            teachers.setdefault(trial.variant.teacher, {})[trial.seed] = rows[trial.teachers]
    right = {variant: _values(of_variant, split) for variant, of_variant in students.items()}
    teacher_right = {teacher: _values([*by_seed.values()], split) for teacher, by_seed in teachers.items()}
    return {
        "experiment": name,
        "data": data.name,
        "split": split,
        "data_fingerprint": data.fingerprint,
        "examples": {domain: len(digits) for domain, digits in students[reference][0]["right"][split].items()},
        "seeds": [row["seed"] for row in students[reference]],
        **_origin([rows[key] for trial in trials for key in trial.keys]),
        "teachers": {teacher: summary(values) for teacher, values in teacher_right.items()},
        **_compared([trial.variant for trial in trials], right, teacher_right, reference),
        "checks": {variant: checks for variant, of_variant in students.items() if (checks := _mean_checks(of_variant))},
    }


def _compared(
    variants: Sequence[Variant], right: Mapping[str, Values], teacher_right: Mapping[str, Values], reference: str
) -> dict[str, Any]:
    """Accuracies and differences of students; of `tune` the best candidates, untested because chosen by it."""
    if any(variant.tunes for variant in variants):
        students = {name: summary(values) for name, values in right.items()}
        return {"students": students, "best": _best(variants, students)}
    teachers = {variant.name: teacher_right[variant.teacher] for variant in variants if variant.teacher}
    lost = {name: difference(right[name], teacher).as_dict() for name, teacher in teachers.items()}
    return {"minus_teacher": lost, **compare(reference, right)}


def _mean_checks(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The checks that all rows have, averaged over seeds."""
    checks = [row.get("checks", {}) for row in rows]
    return {name: float(np.mean([c[name] for c in checks])) for name in checks[0] if all(name in c for c in checks)}


def _best(variants: Sequence[Variant], students: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """For each variant the best candidate (the first of equals), its settings, and the names of all candidates."""
    groups: dict[str, dict[str, Variant]] = {}
    for variant in variants:
        groups.setdefault(variant.tunes, {})[variant.name] = variant
    best = {}
    for tuned, group in groups.items():
        chosen = max(group, key=lambda name: students[name]["mean"])
        best[tuned] = {"chosen": chosen, "settings": dict(group[chosen].tuned_settings), "candidates": [*group]}
    return best


def _origin(rows: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Versions of metakd with their commits, and processors or GPUs, that rows come from; a notice if they differ."""
    environments = [row["environment"] for row in rows]
    origin = {
        "made_with": sorted({f"{e['versions'].get('metakd')} {e['commit'] or ''}" for e in environments}),
        "made_on": sorted({e.get("gpu") or e.get("processor") or "unknown" for e in environments}),
    }
    for name, how in (("made_with", "different versions of metakd"), ("made_on", "different machines")):
        if len(origin[name]) > 1:
            notice(f"rows come from {how}: {', '.join(origin[name])}")
    return origin


def _values(rows: Sequence[dict[str, Any]], split: str) -> Values:
    """1 for each correct prediction, else 0: domain -> (seeds, examples)."""
    right = [row["right"][split] for row in rows]
    return {domain: np.array([[int(digit) for digit in r[domain]] for r in right]) for domain in right[0]}
