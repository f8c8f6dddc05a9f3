"""One variant of an experiment with one seed: the runs it is made of, what it depends on, the rows it gives."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from metakd.config.settings import Settings
from metakd.data.dataset import MultiDomainDataset
from metakd.data.samplers import updates_a_pass
from metakd.data.splits import of_domain
from metakd.evaluation.predictions import correct_predictions
from metakd.experiments.variants import Variant
from metakd.inference.torch_backend import TorchModel
from metakd.methods import METHODS
from metakd.methods.base import has_teacher
from metakd.pipeline.distill import distill_all
from metakd.pipeline.teach import teach
from metakd.pipeline.teacher_outputs import drop_teacher_cache
from metakd.pipeline.weigh import weigh
from metakd.runs.run import Run
from metakd.utils.artifacts import fingerprint, read_manifest
from metakd.utils.environment import environment

SCORED = ("dev", "test")
ALWAYS: dict[str, Any] = {"baseline": False, "keep_cache": True, "allow_weak_teacher": True, "track": "none"}
PROBES = {"chance": "domain by chance", "pooled": "domain read off E(x)", "representation": "domain read off h"}


@dataclass(frozen=True)
class Trial:
    """One variant with one seed: a run whose students are those of all domains, or a run for each domain's student."""

    variant: Variant
    seed: int
    parts: list[tuple[Run, list[str]]]  # with the domains that it makes students of

    @classmethod
    def of(cls, variant: Variant, seed: int, settings: Settings, data: MultiDomainDataset, folder: Path) -> Trial:
        def run(part: MultiDomainDataset, *other_teachers: Run, **more: Any) -> Run:
            changed = settings.model_dump() | variant.changes | ALWAYS | {"seed": seed} | more
            return Run(folder, Settings.build(changed, f"variant {variant.name!r}"), part, True, other_teachers)

        def updates(part: Run) -> int:
            return updates_a_pass(len(part.with_extra_texts(part.data.train)), settings.batch_size)

        def by_itself(domain: str) -> Run:
            """With as many updates on its own domain's text as others make on all."""
            alone = run(left.only(domain))
            passes = whole.settings.shared_epochs * updates(whole) / updates(alone)
            return run(alone.data, shared_epochs=math.ceil(passes))

        def by_all(part: MultiDomainDataset) -> Run:
            """Taught by a teacher of each domain."""
            return run(part, *(run(part.only(domain)) for domain in part.domains))

        left = data.thinned(variant.percent, seed)
        whole = run(left)
        if variant.scope == "all":
            return cls(variant, seed, [(whole, data.domains)])
        if variant.scope == "several":
            return cls(variant, seed, [(by_all(left), data.domains)])
        own = {
            "alone": by_itself,
            "rare": lambda domain: run(data.thinned(variant.percent, seed, domain)),
            "several, rare": lambda domain: by_all(data.thinned(variant.percent, seed, domain)),
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
        return fingerprint([(run.teach_fingerprint, run.data.fingerprint, own) for run, own in self.parts])

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
                for learning in (*run.other_teachers, run):
                    if learning.settings.weights != "none":
                        weigh(learning)
                for teacher_run in run.teachers:
                    teach(teacher_run)
        if self.teachers and self.teachers not in known:
            folders = {domain: run.teacher_folder for run, own in self.parts for domain in own}
            yield self._row(self.teachers, self.variant.teacher, folders, started)
        if self.students in known:
            return
        folders = {}
        for run, own in self.parts:
            folders |= dict(zip(own, distill_all(run, own, [self.settings.method]), strict=True))
            if run.cache_folder not in kept:
                drop_teacher_cache(run)
        yield self._row(self.students, self.variant.name, folders, started) | {"checks": self._checks(folders.values())}

    def _checks(self, students: Iterable[Path]) -> dict[str, float]:
        """What the weights t and λ and the domain loss came to, where one teacher has taught all: names -> values."""
        (run, _), *others = self.parts
        if others or len(run.teachers) > 1 or "teacher" not in METHODS[self.settings.method].needs:
            return {}
        teacher, weights = read_manifest(run.teacher_folder), read_manifest(run.weights_folder)
        expertise = [m["expertise"]["effective_share"] for m in map(read_manifest, students) if m and "expertise" in m]
        found = {PROBES[name]: value for name, value in (teacher or {}).get("domain_probe", {}).items()}
        found["effective share of t"] = weights["weights"]["effective_share"] if weights else None
        found["effective share of λ"] = sum(expertise) / len(expertise) if expertise else None
        return {name: value for name, value in found.items() if value is not None}

    def _row(self, key: str, name: str, folders: dict[str, Path], started: float) -> dict[str, Any]:
        """What the models in `folders` get right of dev and of test: to choose by, and to report."""
        right: dict[str, dict[str, str]] = {split: {} for split in SCORED if self.parts[0][0].data.splits.get(split)}
        loaded = dict[Path, TorchModel]()
        for run, own in self.parts:
            for domain in own:
                folder = folders[domain]
                loaded = loaded if folder in loaded else {folder: TorchModel.load(folder)}
                for split, domains in right.items():
                    examples = of_domain(run.data.splits[split], domain)
                    marks = correct_predictions(examples, run.data.labels, loaded[folder])
                    domains[domain] = "".join(map(str, marks.astype(int)))
        return {
            "key": key,
            "variant": name,
            "seed": self.seed,
            "right": right,
            "seconds": round(time.monotonic() - started, 1),
            "settings": self.settings.model_dump(mode="json") | {"precision": self.parts[0][0].precision},
            "environment": environment(),
        }
