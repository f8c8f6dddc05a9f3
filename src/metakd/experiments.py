"""Grids of methods, seeds and settings on one corpus: run cell by cell, resumed at the cell, compared at the end."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from metakd.artifacts import environment, fingerprint, write_json, write_text
from metakd.comparison import Values, compare, markdown, summary
from metakd.config import Settings
from metakd.distillation import distill_all, forget
from metakd.domains import MultiDomainDataset, of_domain
from metakd.errors import InputError
from metakd.grids import EXPERIMENTS, Variant
from metakd.inference import Classifier
from metakd.methods import METHODS
from metakd.pipeline import teach, weigh
from metakd.progress import console
from metakd.runs import Run, check_models
from metakd.scoring import check_scorable, right_answers

ROWS_FILE = "rows.jsonl"


@dataclass(frozen=True)
class Cell:
    """One variant with one seed: a run whose students are those of all domains, or a run for each domain's student."""

    variant: Variant
    seed: int
    parts: list[tuple[Run, list[str]]]  # with the domains that it makes students of

    @classmethod
    def of(cls, variant: Variant, seed: int, settings: Settings, data: MultiDomainDataset, folder: Path) -> Cell:
        changes = variant.changes | {"seed": seed, "rival": False, "keep_cache": True}
        if variant.scope == "alone":  # as many updates on its own domain's text as others make on all
            changes["shared_epochs"] = settings.shared_epochs * len(data.domains)
        changed = Settings.build(settings.model_dump() | changes, f"variant {variant.name!r}")

        def run(part: MultiDomainDataset, school: Run | None = None) -> Run:
            return Run(folder, changed, part, by_content=True, school=school)

        left = data.thinned(variant.percent, seed)
        if variant.scope == "all":
            return cls(variant, seed, [(run(left), data.domains)])
        own = {
            "alone": lambda domain: run(left.only(domain)),
            "rare": lambda domain: run(data.thinned(variant.percent, seed, domain)),
            "unseen": lambda domain: run(left, run(left.without(domain))),
        }[variant.scope]
        return cls(variant, seed, [(own(domain), [domain]) for domain in data.domains])

    @property
    def runs(self) -> list[Run]:
        return [run for run, _ in self.parts]

    @property
    def students(self) -> str:
        """The key of its students' row: all that they depend on."""
        method = self.runs[0].settings.method
        return fingerprint([run.distill_fingerprint(method, d) for run, own in self.parts for d in own])

    @property
    def teachers(self) -> str | None:
        """The key of its teachers' row, if the variant names one."""
        return fingerprint([run.teach_fingerprint for run in self.runs]) if self.variant.teacher else None

    def keys(self) -> set[str]:
        return {self.students} | ({self.teachers} if self.teachers else set())

    def caches(self) -> set[Path]:
        return {run.cache_folder for run in self.runs}

    def rows(self) -> Iterator[dict[str, Any]]:
        """Train what is missing and score it: the teachers first, so that their row is there whatever comes."""
        started = time.monotonic()
        for run in self.runs:
            if "teacher" in METHODS[run.settings.method].needs:
                for learning in [run.school, run] if run.school else [run]:
                    if learning.settings.weights != "none":
                        weigh(learning)
                teach(run.school or run)
        if self.teachers:
            folders = {domain: run.teacher_folder for run, own in self.parts for domain in own}
            yield self._row(self.teachers, self.variant.teacher, folders, started)
        folders = {}
        for run, own in self.parts:
            folders |= dict(zip(own, distill_all(run, own, [run.settings.method]), strict=True))
        yield self._row(self.students, self.variant.name, folders, started)
        for run in self.runs:  # what is known of the students is in the row
            shutil.rmtree(run.shared_folder(run.settings.method), ignore_errors=True)
        for folder in folders.values():
            shutil.rmtree(folder)

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
            "settings": self.runs[0].settings.model_dump(mode="json") | {"precision": self.runs[0].precision},
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

    def merge(self, other: Path) -> None:
        """Take over the cells of another machine."""
        try:
            rows = _read(other)
        except OSError as error:
            raise InputError(f"--merge {other}: cannot be read ({error.strerror})") from None
        for row in rows:
            if row["key"] not in self.found:
                self.add(row)


def _read(path: Path) -> list[dict[str, Any]]:
    """The rows of all whole lines."""
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
            rows.append(row | {"key": row["key"], "right": dict(row["right"])})
        except (ValueError, TypeError, KeyError):
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
    rows = Rows(folder / ROWS_FILE)
    for path in merge:
        rows.merge(path)
    missing = [cell for cell in cells if not cell.keys() <= set(rows.found)]
    for run in [run for cell in missing for run in cell.runs]:
        check_scorable(run)
        check_models(run.settings)
        _ = run.stages
    spent: list[float] = []
    for number, (cell, following) in enumerate(pairwise([*missing, None])):
        assert cell is not None
        left = f", about {np.mean(spent) * (len(missing) - number) / 60:.0f} minutes left" if spent else ""
        title = f"cell {number + 1} of {len(missing)}: {cell.variant.name}, seed {cell.seed}{left}"
        console.print(title, style="bold", highlight=False)
        started = time.monotonic()
        for row in cell.rows():
            if row["key"] not in rows.found:
                rows.add(row)
        spent.append(time.monotonic() - started)
        for run in cell.runs:
            if following is None or run.cache_folder not in following.caches():
                forget(run)
    results = _results(name, cells, rows, reference or variants[0].name)
    write_json(folder / f"{name}.json", results)
    write_text(folder / f"{name}.md", markdown(results))
    return results


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
        "data": cells[0].runs[0].data.name,
        "split": first["split"],
        "examples": {domain: len(marks) for domain, marks in first["right"].items()},
        "seeds": [row["seed"] for row in students[reference]],
        "teachers": {variant: summary(_values(own)) for variant, own in teachers.items()},
        **compare(reference, {variant: _values(own) for variant, own in students.items()}),
    }


def _values(rows: Sequence[dict[str, Any]]) -> Values:
    """What was right of each domain, (seeds, examples)."""
    return {d: np.array([[int(mark) for mark in row["right"][d]] for row in rows]) for d in rows[0]["right"]}
