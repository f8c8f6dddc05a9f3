"""What each student of a run learns from, and where it is saved."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from metakd.data.schema import Example
from metakd.data.splits import by_domain, hold_out
from metakd.methods import METHODS
from metakd.runs.run import Run


@dataclass(frozen=True)
class StudentJob:
    """What one student learns from, and where it is saved: a domain's student, or (`domain` is None) a shared start."""

    method: str
    domain: str | None
    folder: Path
    fingerprint: str
    checkpoints: Path
    examples: list[Example]
    held_out: list[Example]  # training examples that a method with a held-out split does not learn from


def student_jobs(run: Run, method: str, domains: Iterable[str | None]) -> list[StudentJob]:
    """A job for each of `domains`; the texts are sorted by domain only once."""
    train, held_out = run.labelled_rows(method), list[Example]()
    if "held_out_split" in METHODS[method].needs:  # drawn once from all, so that the shared start has not read it
        train, held_out = hold_out(train, run.settings.seed)
    if "teacher" in METHODS[method].needs:
        train = run.features.with_extra_texts([*train, *run.data.unlabelled])
    if "soft_labels" in METHODS[method].needs:
        train = run.features.with_extra_texts(train)
    whole = train, held_out
    parts = [by_domain(examples) for examples in whole]
    jobs = []
    for domain in domains:
        texts = whole if domain is None else [part.get(domain, []) for part in parts]
        examples = texts[0]
        if domain is not None and "foreign_text" in METHODS[method].needs:
            examples = run.features.of_classes(train, domain)
        folder, fingerprint = run.folders.student(method, domain), run.fingerprints.distill(method, domain)
        checkpoints = run.folders.checkpoints(f"{method}-{folder.name}", fingerprint)
        jobs.append(StudentJob(method, domain, folder, fingerprint, checkpoints, examples, texts[1]))
    return jobs
