"""Grids of methods, seeds and settings on one corpus: run cell by cell, resumed at the cell, compared at the end."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from metakd.artifacts import environment, fingerprint, write_json, write_text
from metakd.batching import updates_a_pass
from metakd.comparison import Values, compare, markdown, summary
from metakd.config import Settings
from metakd.distillation import alone, distill_all, forget
from metakd.domains import MultiDomainDataset, folder_name, of_domain
from metakd.errors import InputError
from metakd.grids import EXPERIMENTS, Variant
from metakd.inference import Classifier
from metakd.methods import METHODS
from metakd.methods.base import has_teacher
from metakd.pipeline import teach, weigh
from metakd.progress import console, notice
from metakd.runs import Run, check_models
from metakd.scoring import check_scorable, right_answers

ROWS_FILE = "rows.jsonl"
STUDENTS = ("students", "shared_student-*")


@dataclass(frozen=True)
class Cell:
    """One variant with one seed: a run whose students are those of all domains, or a run for each domain's student."""

    variant: Variant
    seed: int
    parts: list[tuple[Run, list[str]]]  # with the domains that it makes students of

    @classmethod
    def of(cls, variant: Variant, seed: int, settings: Settings, data: MultiDomainDataset, folder: Path) -> Cell:
        always = {"seed": seed, "rival": False, "keep_cache": True, "allow_weak_teacher": True}

        def run(part: MultiDomainDataset, school: Run | None = None, **more: Any) -> Run:
            changed = settings.model_dump() | variant.changes | always | more
            return Run(folder, Settings.build(changed, f"variant {variant.name!r}"), part, True, school)

        def by_itself(domain: str) -> Run:
            """With as many updates on its own domain's text as others make on all."""
            own = left.only(domain)
            of_all, of_own = (updates_a_pass(len(part.train), settings.batch_size) for part in (left, own))
            return run(own, shared_epochs=math.ceil(settings.shared_epochs * of_all / of_own))

        left = data.thinned(variant.percent, seed)
        if variant.scope == "all":
            return cls(variant, seed, [(run(left), data.domains)])
        own = {
            "alone": by_itself,
            "rare": lambda domain: run(data.thinned(variant.percent, seed, domain)),
            "unseen": lambda domain: run(left, run(left.without(domain))),
        }[variant.scope]
        return cls(variant, seed, [(own(domain), [domain]) for domain in data.domains])

    @property
    def settings(self) -> Settings:
        return self.parts[0][0].settings

    @cached_property
    def students(self) -> str:
        """The key of its students' row: all that they depend on."""
        method = self.settings.method
        return fingerprint([run.distill_fingerprint(method, domain) for run, own in self.parts for domain in own])

    @cached_property
    def teachers(self) -> str | None:
        """The key of its teachers' row, if the variant names one: the teachers, and what they are scored on."""
        if not self.variant.teacher:
            return None
        return fingerprint([(run.teach_fingerprint, run.data_fingerprint, own) for run, own in self.parts])

    @property
    def keys(self) -> set[str]:
        return {self.students} | ({self.teachers} if self.teachers else set())

    @property
    def caches(self) -> set[Path]:
        """What its teachers say, where it is worth keeping for the next cell: once the whole text at most."""
        return {run.cache_folder for run, _ in self.parts} if self.variant.scope in ("all", "alone") else set()

    def rows(self, known: Collection[str], kept: Collection[Path]) -> Iterator[dict[str, Any]]:
        """Train what is missing and score it: the teachers first, so that their row is there whatever comes.

        Rows of `known` keys are left out; `kept` are caches that the next cell reads as well.
        """
        started = time.monotonic()
        if has_teacher(METHODS[self.settings.method]):
            for run, _ in self.parts:
                for learning in [run.school, run] if run.school else [run]:
                    if learning.settings.weights != "none":
                        weigh(learning)
                teach(run.school or run)
        if self.teachers and self.teachers not in known:
            folders = {domain: run.teacher_folder for run, own in self.parts for domain in own}
            yield self._row(self.teachers, self.variant.teacher, folders, started)
        if self.students in known:
            return
        folders = {}
        for run, own in self.parts:
            folders |= dict(zip(own, distill_all(run, own, [self.settings.method]), strict=True))
            if run.cache_folder not in kept:
                forget(run)
        yield self._row(self.students, self.variant.name, folders, started)

    def _row(self, key: str, name: str, folders: dict[str, Path], started: float) -> dict[str, Any]:
        domains, loaded = {}, dict[Path, Classifier]()
        for run, own in self.parts:
            split = check_scorable(run)
            for domain in own:
                folder = folders[domain]
                loaded = loaded if folder in loaded else {folder: Classifier.load(folder)}
                rights = right_answers(of_domain(run.data.splits[split], domain), run.data.labels, loaded[folder])
                domains[domain] = "".join(map(str, rights.astype(int)))
        return {
            "key": key,
            "variant": name,
            "seed": self.seed,
            "split": split,
            "right": domains,
            "seconds": round(time.monotonic() - started, 1),
            "settings": self.settings.model_dump(mode="json") | {"precision": self.parts[0][0].precision},
            "environment": environment(),
        }


class Rows:
    """A JSON Lines file of finished cells by key; a torn last line counts as not there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found = {row["key"]: row for row in _read(path)} if path.exists() else {}
        if path.exists():
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)

    def add(self, row: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.found[row["key"]] = row

    def merge(self, other: Path, wanted: Collection[str]) -> None:
        """Take over the cells of another machine, and say how many of them are `wanted`."""
        try:
            rows = _read(other)
        except OSError as error:
            raise InputError(f"--merge {other}: cannot be read ({error.strerror})") from None
        hits = sum(row["key"] in wanted for row in rows)
        console.print(f"{other}: {len(rows)} rows, {hits} of them of this experiment", highlight=False)
        for row in rows:
            if row["key"] not in self.found:
                self.add(row)


def _read(path: Path) -> list[dict[str, Any]]:
    """The rows of all whole lines."""
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
            if any(set(marks) - {"0", "1"} for marks in row["right"].values()):
                raise ValueError("not marks")
            rows.append(row | {name: row[name] for name in ("key", "variant", "seed", "split", "environment")})
        except (ValueError, TypeError, KeyError, AttributeError):
            raise InputError(f"{path}, line {number}: not the row of a cell; remove it, or the file") from None
    return rows


# --- The whole ----------------------------------------------------------------------------------------------------


def experiment(
    name: str,
    data: MultiDomainDataset,
    settings: Settings,
    folder: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    reference: str | None = None,
    merge: Sequence[Path] = (),
) -> dict[str, Any]:
    """Run every cell of the experiment that `folder` (or a file of `merge`) has no row of, and compare them.

    `reference` is the variant that all others are held against (by default the first). Writes NAME.json and NAME.md.
    """
    variants = _variants(name, settings, data, seeds, reference)
    cells = [Cell.of(variant, seed, settings, data, folder) for seed in seeds for variant in variants]
    for run in [cell.parts[0][0] for cell in cells]:
        check_scorable(run)
        check_models(run.settings)
        _ = run.stages
    with alone(folder / "experiment.lock", "runs an experiment here"):
        rows = Rows(folder / ROWS_FILE)
        for path in merge:
            rows.merge(path, set[str]().union(*(cell.keys for cell in cells)))
        _run(cells, rows)
        _remove(folder, "teacher_cache-*", "checkpoints", *STUDENTS)
        results = _results(name, cells, rows, reference or variants[0].name)
        stem = f"{name}-against-{folder_name(reference)}" if reference else name
        write_json(folder / f"{stem}.json", results)
        write_text(folder / f"{stem}.md", markdown(results))
    return results


def _run(cells: Sequence[Cell], rows: Rows) -> None:
    """Every cell without a row, one after the other."""
    missing = [cell for cell in cells if not cell.keys <= set(rows.found)]
    spent: list[float] = []
    for number, (cell, following) in enumerate(zip_longest(missing, missing[1:])):
        if cell.keys <= set(rows.found):  # another variant came to the same
            continue
        left = f", about {np.mean(spent) * (len(missing) - number) / 60:.0f} minutes left" if spent else ""
        title = f"cell {number + 1} of {len(missing)}: {cell.variant.name}, seed {cell.seed}{left}"
        console.print(title, style="bold", highlight=False)
        started = time.monotonic()
        for row in cell.rows(set(rows.found), following.caches if following else ()):
            rows.add(row)
        _remove(rows.path.parent, *STUDENTS)  # what is known of them is in their row
        spent.append(time.monotonic() - started)


def _remove(folder: Path, *patterns: str) -> None:
    for path in [path for pattern in patterns for path in folder.glob(pattern)]:
        shutil.rmtree(path, ignore_errors=True)


def _variants(
    name: str, settings: Settings, data: MultiDomainDataset, seeds: Sequence[int], reference: str | None
) -> list[Variant]:
    """The experiment's variants; one InputError for all that cannot be run as it was asked for."""
    if name not in EXPERIMENTS:
        raise InputError(f"experiment {name!r}: there are {', '.join(EXPERIMENTS)}")
    variants = EXPERIMENTS[name](settings)
    faults = []
    if not seeds or len(set(seeds)) != len(seeds):
        faults.append("seeds: name at least one, and each once")
    if reference is not None and reference not in {v.name for v in variants}:
        faults.append(f"reference = {reference!r}: the experiment has {', '.join(v.name for v in variants)}")
    held_out = data.splits.get(data.scored_split or "", [])
    if len(data.domains) < 2 and any(v.scope == "unseen" for v in variants):
        faults.append(f"{data.name}: one domain only, so no teacher can have learnt from others")
    few = [domain for domain in data.domains if sum(e.domain == domain for e in held_out) < 2]
    if held_out and few:
        faults.append(f"{data.name}: intervals need two scored rows a domain; there are fewer of {', '.join(few)}")
    if faults:
        raise InputError.collect(f"experiment {name}", faults)
    return variants


def _results(name: str, cells: Sequence[Cell], rows: Rows, reference: str) -> dict[str, Any]:
    students: dict[str, list[dict[str, Any]]] = {}
    teachers: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        students.setdefault(cell.variant.name, []).append(rows.found[cell.students])
        if cell.teachers:
            teachers.setdefault(cell.variant.teacher, []).append(rows.found[cell.teachers])
    first = students[reference][0]
    return {
        "experiment": name,
        "data": cells[0].parts[0][0].data.name,
        "split": first["split"],
        "examples": {domain: len(marks) for domain, marks in first["right"].items()},
        "seeds": [row["seed"] for row in students[reference]],
        "made_with": _made_with([row for own in (*students.values(), *teachers.values()) for row in own]),
        "teachers": {variant: summary(_values(own)) for variant, own in teachers.items()},
        **compare(reference, {variant: _values(own) for variant, own in students.items()}),
    }


def _made_with(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The versions of metakd that rows come from, with commits where they are known; says so where they differ."""
    found = {f"{row['environment']['versions'].get('metakd')} {row['environment']['commit'] or ''}" for row in rows}
    if len(found) > 1:
        notice(f"rows were made with different versions of metakd: {', '.join(sorted(found))}")
    return sorted(found)


def _values(rows: Sequence[dict[str, Any]]) -> Values:
    """What was right of each domain, (seeds, examples)."""
    return {d: np.array([[int(mark) for mark in row["right"][d]] for row in rows]) for d in rows[0]["right"]}
