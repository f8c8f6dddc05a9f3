"""What one student learns from, and where it goes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from metakd.data.schema import Example
from metakd.data.splits import by_domain, hold_out
from metakd.methods import METHODS
from metakd.methods.base import Stage
from metakd.runs.run import Run


@dataclass(frozen=True)
class StudentJob:
    """What one student learns from, and where it goes: a domain's own, or (`domain` is None) a shared start."""

    method: str
    domain: str | None
    folder: Path
    fingerprint: str
    examples: list[Example]
    held_out: list[Example]  # training examples that a method with a held-out split does not learn from
    dev: list[Example]

    @classmethod
    def for_domains(cls, run: Run, method: str, domains: Iterable[str | None]) -> list[StudentJob]:
        """One for each of `domains`; the texts are sorted by domain once for all."""
        train, held_out, dev = run.data.train, list[Example](), run.data.splits.get("dev", [])
        if "held_out_split" in METHODS[method].needs:  # drawn once of all, so that the shared start has read none of it
            train, held_out = hold_out(train, run.settings.seed)
        if "teacher" in METHODS[method].needs:
            train = run.features.with_extra_texts(train)
        whole = train, held_out, dev
        parts = [by_domain(examples) for examples in whole]
        jobs = []
        for domain in domains:
            texts = whole if domain is None else [part.get(domain, []) for part in parts]
            examples = train if "foreign_text" in METHODS[method].needs else texts[0]
            folder = run.folders.student(method, domain) if domain else run.folders.shared_student(method)
            fingerprint = run.fingerprints.distill(method, domain)
            jobs.append(cls(method, domain, folder, fingerprint, examples, *texts[1:]))
        return jobs

    @classmethod
    def of_shared_start(cls, run: Run, method: str) -> StudentJob | None:
        """The start that all of the method's students share, if they do."""
        shared = any(stage.shared for stage in run.stages[method])
        return cls.for_domains(run, method, [None])[0] if shared else None

    def checkpoints(self, run: Run) -> Path:
        return run.folders.checkpoints(f"{self.method}-{self.folder.name}", self.fingerprint)

    def whole_texts(self, run: Run) -> list[Example]:
        """The training texts of its domain or of all, without their extra windows and crops."""
        return [e for e in run.data.train if self.domain in (None, e.domain)]

    def select(self, stages: Sequence[Stage]) -> list[Stage]:
        """Those of a method's stages that this job consists of."""
        return [stage for stage in stages if stage.shared == (self.domain is None)]
