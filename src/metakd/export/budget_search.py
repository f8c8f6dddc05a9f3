"""A budget in, small models out: what each candidate costs is measured first, and only what fits is trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from metakd.config.settings import Settings
from metakd.data.dataset import MultiDomainDataset, folder_name
from metakd.data.schema import Example
from metakd.data.splits import of_domain
from metakd.evaluation.costs import measure_latency
from metakd.export.candidates import Budget, Candidate, loaded, measure_all
from metakd.export.exporter import Measured, accuracy, card_of, folder_bytes
from metakd.export.onnx_format import ship
from metakd.inference.onnx_backend import DESCRIPTION_FILE, OnnxModel
from metakd.inference.torch_backend import TorchModel
from metakd.methods import METHODS
from metakd.models.compact_embedding import ROWS
from metakd.models.student import check_models
from metakd.pipeline.distill import distill_all
from metakd.pipeline.plan import minutes
from metakd.pipeline.teach import teach
from metakd.pipeline.weigh import weigh
from metakd.runs.run import Run
from metakd.utils.artifacts import fingerprint, is_done, read_manifest, step_folder, write_json
from metakd.utils.console import console
from metakd.utils.environment import environment
from metakd.utils.errors import InputError, listed, noting, require
from metakd.utils.hardware import usable_cores
from metakd.utils.locks import waiting_lock

DELIVER = "deliver"  # the step that a delivered model's manifest names
FIT_FILE, PICTURE_FILE, WORK_FOLDER = "fit.json", "fit.html", "fit.work"  # a domain's folder has no dot in its name
ALWAYS: dict[str, Any] = {"layer_map": "auto", "baseline": False, "keep_cache": True, "track": "none"}


def fit(
    data: MultiDomainDataset,
    settings: Settings,
    output: Path,
    budget: Budget,
    *,
    also: Sequence[str] = (),
    most: int = 2,
) -> dict[str, Any]:
    """Find the best model for each domain that the budget allows, and write it into `output`/DOMAIN.

    Students of 1 to MOST_LAYERS layers cut from the base, and the checkpoints `also`, in float32 and int8, with whole
    and with compact tables, with texts of `max_length` tokens and of half of it, are timed untrained. Of those students
    that fit in some form, the `most` largest are trained, and every form of them that fits is scored on dev. The most
    accurate is delivered; of equals the smallest, then the fastest. Goes on where it was stopped. fit.json has all
    that was found.

    Raises InputError where no candidate fits, before anything is trained, or where a domain has none that is accurate
    enough; each with the demand that fails and by how much. Models of the other domains are delivered then.
    """
    require("onnx", "onnx")
    require("onnxscript", "onnx")
    _check(data, settings, output, also)
    output.mkdir(parents=True, exist_ok=True)
    with waiting_lock(output / "fit.lock", "fits models here"):
        (output / PICTURE_FILE).unlink(missing_ok=True)  # of an earlier budget; the command line draws another
        measured = measure_all(data, settings, output / WORK_FOLDER, also)
        fitting = [c for c in measured if not budget.excess(c.p95, c.bytes)]
        facts: dict[str, Any] = {"budget": asdict(budget), "candidates": [asdict(c) for c in measured]}
        if not fitting:
            _deliver(data, output, budget, facts, [])
            raise _none_fits(budget, measured)
        chosen = list(dict.fromkeys(c.student for c in fitting))[:most]
        with_tuned_settings = list[Form]()
        for student, run in _in_turn(data, settings, output / WORK_FOLDER, chosen):
            with_tuned_settings += _forms(run, [c for c in fitting if c.student == student])
        for cache in (output / WORK_FOLDER).glob("teacher_cache-*"):
            shutil.rmtree(cache, ignore_errors=True)
        found, faults = _deliver(data, output, budget, facts, with_tuned_settings)
        if faults:
            there = ", ".join(found["delivered"]) or "none"
            raise InputError.collect(
                f"no model meets the budget (delivered: {there}; all that was tried: {output / FIT_FILE})", faults
            )
        return found


def _none_fits(budget: Budget, measured: Sequence[Candidate]) -> InputError:
    nearest = min(measured, key=lambda c: sum(budget.excess(c.p95, c.bytes).values()))
    failing = "; ".join(budget.excess(nearest.p95, nearest.bytes))
    return InputError(f"no candidate meets the budget on this machine; the nearest, {nearest.name}: {failing}")


def _check(data: MultiDomainDataset, settings: Settings, output: Path, also: Sequence[str]) -> None:
    """One InputError for all that would end `fit` once it has measured or trained."""
    problems = list[InputError]()
    dev = {example.domain for example in data.splits.get("dev", [])}
    if not dev:
        told = "no dev split to choose by; add dev.jsonl, or hand over one file to be cut"
        problems.append(InputError(f"{data.name}: {told}"))
    elif lacking := [domain for domain in data.domains if domain not in dev]:
        problems.append(InputError(f"{data.name}: dev has no rows of {listed(lacking)}; add some, or drop the domain"))
    if settings.method not in METHODS:
        problems.append(InputError(f"method = {settings.method!r}: there are {', '.join(METHODS)}"))
    for student in ("layers=1", *also):
        with noting(problems):
            check_models(settings.model_copy(update={"student": student, "layer_map": "auto"}))
            if settings.method in METHODS:
                _stages = _run_of(data, settings, output / WORK_FOLDER, student).stages
    for place in (output / folder_name(domain) for domain in data.domains):
        if place.exists() and (read_manifest(place) or {}).get("step") != DELIVER:
            told = "is there already, and no model of `metakd fit`; choose another --output"
            problems.append(InputError(f"{place} {told}"))
    if problems:
        raise InputError("\n".join(dict.fromkeys(map(str, problems))))


# --- What trained ones are worth


@dataclass(frozen=True)
class Form:
    """One domain's model, trained and exported as the candidate says, and measured on the domain's dev examples."""

    domain: str
    candidate: Candidate  # its costs are those of this very model
    accuracy: float
    folder: Path
    run: Run


def _in_turn(
    data: MultiDomainDataset, settings: Settings, work: Path, students: Sequence[str]
) -> Iterator[tuple[str, Run]]:
    """Each student with its run, and the minutes that it and those after it will take, which are said before it."""
    runs = [_run_of(data, settings, work, student) for student in students]
    left = [_minutes_left(run) for run in runs]
    for place, (student, run) in enumerate(zip(students, runs, strict=True)):
        if left[place]["students"]:
            teacher = 0.0 if is_done(run.teacher_folder, run.teach_fingerprint) else left[place]["teacher"]
            about = teacher + sum(own["students"] for own in left[place:])
            console.print(f"training {student} ({place + 1} of {len(runs)}), about {about:.1f} minutes left")
        yield student, run


def _run_of(data: MultiDomainDataset, settings: Settings, work: Path, student: str) -> Run:
    return Run(work, Settings.build(settings.model_dump() | ALWAYS | {"student": student}), data, by_content=True)


def _minutes_left(run: Run) -> dict[str, float]:
    """Of the teacher and of the students that are not there yet, about."""
    method = run.settings.method
    domains = run.data.domains
    missing = [d for d in domains if not is_done(run.student_folder(method, d), run.distill_fingerprint(method, d))]
    if not missing:
        return {"teacher": 0.0, "students": 0.0}
    needed = minutes(run)
    teacher = sum(needed.pop(step, 0.0) for step in ("weigh", "teach"))
    shared = is_done(run.shared_folder(method), run.distill_fingerprint(method, None))
    return {"teacher": teacher, "students": sum(needed.values()) * (len(missing) / len(domains) if shared else 1.0)}


def _forms(run: Run, wanted: Sequence[Candidate]) -> list[Form]:
    """Train the run's student for every domain and export it in each form `wanted`; what is there already stays."""
    data, settings = run.data, run.settings
    if run.settings.weights != "none":
        weigh(run)
    teach(run)
    students = distill_all(run, data.domains, [settings.method])
    found = list[Form]()
    for (domain, trained), (int8, cut) in product(
        zip(data.domains, students, strict=True), dict.fromkeys((c.int8, c.cut) for c in wanted)
    ):
        lengths = [c.max_length for c in wanted if (c.int8, c.cut) == (int8, cut)]
        where = environment()["processor"], usable_cores()
        mark = fingerprint("form", run.distill_fingerprint(settings.method, domain), int8, cut, ROWS, lengths, where)
        folder, facts = run.folder / "forms" / mark[:16], dict[str, Any]()
        dev = of_domain(data.splits["dev"], domain)
        if not is_done(folder, mark):
            with step_folder(folder, "form", mark, facts) as partial:
                own = of_domain(data.train, domain) if cut else None
                ship(TorchModel.load(trained), partial / "model", dev, settings.max_length, int8=int8, own=own)
                facts["measured"] = [
                    _scored(loaded(partial / "model", length), dev, data.labels) | {"max_length": length}
                    for length in lengths
                ]
        for own_costs in (read_manifest(folder) or {})["measured"]:
            score = own_costs.pop("accuracy")
            costs = own_costs | {"bytes": folder_bytes(folder / "model")}
            found.append(Form(domain, Candidate(settings.student, int8, cut, **costs), score, folder / "model", run))
    return found


def _scored(model: OnnxModel, examples: Sequence[Example], labels: list[str]) -> dict[str, float]:
    return measure_latency(model, examples) | {"accuracy": accuracy(model, examples, labels)}


# --- What is delivered


def _deliver(
    data: MultiDomainDataset, output: Path, budget: Budget, facts: dict[str, Any], with_tuned_settings: Sequence[Form]
) -> tuple[dict[str, Any], list[str]]:
    """Write the best form of each domain that has one, and what was found; gives that, and the domains without one.

    What was delivered of such a domain by a more generous budget goes.
    """
    delivered, faults = dict[str, Any](), []
    for domain in data.domains:
        own = [form for form in with_tuned_settings if form.domain == domain]
        dev, test = (of_domain(data.splits.get(split, []), domain) for split in ("dev", "test"))
        meeting = [form for form in own if not _excess(budget, form)]
        place = output / folder_name(domain)
        if not meeting:
            shutil.rmtree(place, ignore_errors=True)
            if own:
                nearest = min(own, key=lambda f: sum(_excess(budget, f).values()))
                faults.append(f"{domain}: {'; '.join(_excess(budget, nearest))} ({nearest.candidate.name})")
            continue
        best = max(meeting, key=lambda f: (f.accuracy, -f.candidate.bytes, -f.candidate.p95))
        delivered[domain] = _told(best)
        with step_folder(place, DELIVER, "", delivered[domain]) as partial:
            shutil.copytree(best.folder, partial, dirs_exist_ok=True)
            description = json.loads((partial / DESCRIPTION_FILE).read_text(encoding="utf-8"))
            write_json(partial / DESCRIPTION_FILE, description | {"max_length": best.candidate.max_length})
            if test:
                delivered[domain]["test_accuracy"] = accuracy(OnnxModel.load(partial), test, data.labels)
            split, score = ("test", delivered[domain]["test_accuracy"]) if test else ("dev", best.accuracy)
            cost = Measured(score, round(best.candidate.bytes), best.candidate.median)
            card_of(best.run, domain, best.candidate.name, cost, split, len(test or dev)).write(partial)
    found = facts | {
        "tried": [_told(form) for form in with_tuned_settings],
        "delivered": delivered,
        "environment": environment(),
    }
    write_json(output / FIT_FILE, found)
    return found, faults


def _excess(budget: Budget, form: Form) -> dict[str, float]:
    return budget.excess(form.candidate.p95, form.candidate.bytes, form.accuracy)


def _told(form: Form) -> dict[str, Any]:
    return asdict(form.candidate) | {"domain": form.domain, "accuracy": form.accuracy, "name": form.candidate.name}
