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
    mark: str
    examples: list[Example]
    held_out: list[Example]  # of the training examples, those that a method with a held-out split is not to learn from
    dev: list[Example]

    @classmethod
    def of(cls, run: Run, method: str, domain: str | None) -> StudentJob:
        return cls.fleet(run, method, [domain])[0]

    @classmethod
    def fleet(cls, run: Run, method: str, domains: Iterable[str | None]) -> list[StudentJob]:
        """One for each of `domains`; the texts are sorted by domain once for all."""
        train, held_out, dev = run.data.train, list[Example](), run.data.splits.get("dev", [])
        if "held_out_split" in METHODS[method].needs:  # drawn once of all, so that the shared start knows none of it
            train, held_out = hold_out(train, run.settings.seed)
        if "teacher" in METHODS[method].needs:
            train = run.with_extra_texts(train)
        whole, foreign = (train, held_out, dev), "foreign_text" in METHODS[method].needs
        parts = [by_domain(examples) for examples in whole]
        jobs = []
        for domain in domains:
            texts = whole if domain is None else [part.get(domain, []) for part in parts]
            folder = run.student_folder(method, domain) if domain else run.shared_folder(method)
            mark = run.distill_fingerprint(method, domain)
            jobs.append(cls(method, domain, folder, mark, train if foreign else texts[0], *texts[1:]))
        return jobs

    @classmethod
    def shared_by(cls, run: Run, method: str) -> StudentJob | None:
        """The start that all of the method's students share, if they do."""
        return cls.of(run, method, None) if any(stage.shared for stage in run.stages[method]) else None

    def whole_texts(self, run: Run) -> list[Example]:
        """The training texts of its domain or of all, without windows and crops of them."""
        return [e for e in run.data.train if self.domain in (None, e.domain)]

    def own(self, stages: Sequence[Stage]) -> list[Stage]:
        """Those of a method's stages that this lesson is made of."""
        return [stage for stage in stages if stage.shared == (self.domain is None)]
