"""A trial, one variant of an experiment with one seed: its runs, what they depend on, and its rows of results."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from metakd.config.groups import READING
from metakd.config.settings import Settings
from metakd.data.dataset import MultiDomainDataset
from metakd.data.samplers import updates_per_epoch
from metakd.data.splits import of_domain
from metakd.evaluation.predictions import loader, predictions_of
from metakd.experiments.variants import Variant
from metakd.inference.long_texts import reading_by
from metakd.methods import METHODS
from metakd.methods.base import has_teacher
from metakd.pipeline.distill import distill_all
from metakd.pipeline.teach import teach
from metakd.pipeline.teacher_outputs import drop_teacher_cache
from metakd.pipeline.weigh import weigh
from metakd.runs.run import Run
from metakd.utils.artifacts import fingerprint, read_manifest
from metakd.utils.hardware import environment

SCORED = ("dev", "test")  # to choose, and to report
FIXED_SETTINGS: dict[str, Any] = {"baseline": False, "keep_cache": True, "allow_weak_teacher": True, "track": "none"}
FIXED_SETTINGS |= {"teacher_tries": 1}
PROBES = {"chance": "domain by chance", "pooled": "domain read off E(x)", "representation": "domain read off h"}


@dataclass(frozen=True)
class Trial:
    """One variant with one seed: one run with the students of all domains, or a run for each domain's student."""

    variant: Variant
    seed: int
    parts: list[tuple[Run, list[str]]]  # each run with the domains that it trains students for

    @classmethod
    def of(cls, variant: Variant, seed: int, settings: Settings, data: MultiDomainDataset, folder: Path) -> Trial:
        def run(part: MultiDomainDataset, *other_teachers: Run, **more: Any) -> Run:
            changed = settings.model_dump() | variant.changes | FIXED_SETTINGS | {"seed": seed} | more
            return Run(folder, Settings.build(changed, f"variant {variant.name!r}"), part, True, other_teachers)

        def updates(part: Run) -> int:
            return updates_per_epoch(len(part.features.student_texts), settings.batch_size)

        def alone(domain: str, whole: Run) -> Run:
            """A run on one domain of `whole`, with as many updates on its text as others make on all."""
            single = run(whole.data.only(domain))
            epochs = whole.settings.shared_epochs * updates(whole) / updates(single)
            return run(single.data, shared_epochs=math.ceil(epochs))

        def several(part: MultiDomainDataset) -> Run:
            """A run with a teacher of each domain."""
            return run(part, *(run(part.only(domain)) for domain in part.domains))

        def thinned(domain: str | None = None) -> MultiDomainDataset:
            few = data.thinned(variant.percent, seed, domain, rest_unlabelled=variant.rest_unlabelled)
            return few.with_unlabelled(variant.unlabelled, seed)

        left = thinned()
        whole = run(left)
        if variant.scope in ("all", "several"):
            return cls(variant, seed, [(whole if variant.scope == "all" else several(left), data.domains)])
        run_of = {
            "alone": lambda domain: alone(domain, whole),
            "alone, rare": lambda domain: alone(domain, run(thinned(domain))),
            "rare": lambda domain: run(thinned(domain)),
            "several, rare": lambda domain: several(thinned(domain)),
            "unseen": lambda domain: run(left, run(left.without(domain))),
        }[variant.scope]
        return cls(variant, seed, [(run_of(domain), [domain]) for domain in data.domains])

    @property
    def settings(self) -> Settings:
        return self.parts[0][0].settings

    @cached_property
    def students(self) -> str:
        """The key of the students' row: the students, and what they are scored on."""
        method, parts = self.settings.method, [(run, domain) for run, domains in self.parts for domain in domains]
        return fingerprint([(run.fingerprints.distill(method, d), *self._scoring(run)) for run, d in parts])

    @cached_property
    def teachers(self) -> str | None:
        """The key of the teachers' row, if the variant names one: the teachers, and what they are scored on."""
        if not self.variant.teacher:
            return None
        return fingerprint([(run.fingerprints.teach, *self._scoring(run), domains) for run, domains in self.parts])

    def _scoring(self, run: Run) -> list[Any]:
        """What scores depend on besides the models."""
        settings = run.settings
        reading = [] if settings.long_texts == "first" else [[getattr(settings, name) for name in READING]]
        return [run.data.fingerprint, *reading, *run.features.classes_by_domain.items()]

    @property
    def keys(self) -> set[str]:
        return {self.students} | ({self.teachers} if self.teachers else set())

    @property
    def caches(self) -> set[Path]:
        """Teacher caches that are worth keeping for the next trial; together they hold each text at most once."""
        return {run.folders.teacher_cache for run, _ in self.parts} if self.variant.scope in ("all", "alone") else set()

    def rows(self, known: Collection[str], kept: Collection[Path]) -> Iterator[dict[str, Any]]:
        """Train and score what is missing: the teachers' row first, so that it is kept even if students fail.

        Args:
            known: Keys of rows that exist already.
            kept: Teacher caches that the next trial reads as well.
        """
        started = time.monotonic()
        if has_teacher(METHODS[self.settings.method]):
            for run, _ in self.parts:
                for weighed in (*run.other_teachers, run):
                    if weighed.settings.weights != "none":
                        weigh(weighed)
                for teacher_run in run.teacher_runs:
                    teach(teacher_run)
        if self.teachers and self.teachers not in known:
            folders = {domain: run.folders.teacher for run, domains in self.parts for domain in domains}
            yield self._row(self.teachers, self.variant.teacher, folders, started)
        if self.students in known:
            return
        folders = {}
        for run, domains in self.parts:
            folders |= dict(zip(domains, distill_all(run, domains, [self.settings.method]), strict=True))
            if run.folders.teacher_cache not in kept:
                drop_teacher_cache(run)
        yield self._row(self.students, self.variant.name, folders, started) | {"checks": self._checks(folders.values())}

    def _checks(self, students: Iterable[Path]) -> dict[str, float]:
        """Probes of the teacher and effective shares of t and λ by name, if one teacher has trained all students."""
        (run, _), *others = self.parts
        if others or len(run.teacher_runs) > 1 or "teacher" not in METHODS[self.settings.method].needs:
            return {}
        teacher, weights = read_manifest(run.folders.teacher), read_manifest(run.folders.weights)
        expertise = [m["expertise"]["effective_share"] for m in map(read_manifest, students) if m and "expertise" in m]
        checks = {PROBES[name]: value for name, value in (teacher or {}).get("domain_probe", {}).items()}
        checks["effective share of t"] = weights["weights"]["effective_share"] if weights else None
        checks["effective share of λ"] = sum(expertise) / len(expertise) if expertise else None
        return {name: value for name, value in checks.items() if value is not None}

    def _row(self, key: str, name: str, folders: dict[str, Path], started: float) -> dict[str, Any]:
        """The row of the models in `folders`: for each split and domain, a 1 for each correct example, else a 0.

        With --long-texts adaptive they read all windows, and each of several labels is given above one half, so that
        nothing was chosen for a variant.
        """
        first = self.parts[0][0]
        right: dict[str, dict[str, str]] = {split: {} for split in SCORED if first.data.splits.get(split)}
        load = loader({}, calibrated=False)
        for run, domains in self.parts:
            for domain, split in product(domains, right):
                examples, model = of_domain(run.data.splits[split], domain), load(folders[domain])
                model.read_as(reading_by(run.settings.model_dump(), run.settings.max_length, model.readable_tokens))
                correct = predictions_of(examples, run.data.labels, model, run.features.classes(domain)).right
                right[split][domain] = "".join(map(str, correct.astype(int)))
        return {
            "key": key,
            "variant": name,
            "seed": self.seed,
            "right": right,
            "seconds": round(time.monotonic() - started, 1),
            "settings": self.settings.model_dump(mode="json") | {"precision": first.precision},
            "environment": environment(),
        }
