"""The best model for a budget: measure all candidates untrained, train those that fit, deliver the most accurate."""

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from metakd.config.groups import READING
from metakd.config.settings import Settings
from metakd.data.dataset import MultiDomainDataset
from metakd.data.schema import folder_name
from metakd.data.splits import of_domain
from metakd.data.windows import Reading
from metakd.evaluation.thresholds import as_entry
from metakd.export.candidates import MEASURED, Budget, Candidate, load_as, measure_candidates
from metakd.export.exporter import accuracy, folder_bytes
from metakd.export.model_cards import BUSY, CHOSEN_ON_DEV, COMPACT, Measured, calibration_notes, parity_note, write_card
from metakd.export.onnx_format import write_model
from metakd.export.standard_files import set_max_length
from metakd.inference.calibration import load_calibration, recorded_calibration, write_calibration
from metakd.inference.layout import DESCRIPTION_FILE, FIT_FILE
from metakd.inference.onnx_backend import OnnxModel
from metakd.inference.torch_backend import TorchModel
from metakd.methods import METHODS
from metakd.models.embeddings import ROWS
from metakd.models.model_checks import check_models
from metakd.pipeline.distill import distill_all
from metakd.pipeline.plan import minutes
from metakd.pipeline.readings import write_temperatures, write_thresholds
from metakd.pipeline.teach import teach
from metakd.pipeline.weigh import weigh
from metakd.runs.run import Run
from metakd.utils.artifacts import STEP_VERSIONS, fingerprint, is_done, read_manifest, step_folder, write_json
from metakd.utils.console import console, notice
from metakd.utils.errors import InputError, collecting, listed, raise_faults, require
from metakd.utils.hardware import environment, timed_on
from metakd.utils.locks import waiting_lock

DELIVER = "deliver"  # the step in a delivered model's manifest
PICTURE_FILE, WORK_FOLDER = "fit.html", "fit.work"  # a domain's folder has no dot in its name
FIXED_SETTINGS: dict[str, Any] = {
    "layer_map": "auto",
    "start_layers": "auto",
    "baseline": False,
    "keep_cache": True,
    "track": "none",
}


@dataclass(frozen=True)
class Form:
    """A candidate trained and exported for one domain, and scored on the domain's dev examples."""

    domain: str
    candidate: Candidate  # with the bytes of this very model; training does not change its latency
    accuracy: float
    folder: Path
    run: Run
    calibration: dict[str, Any]  # of this student in all domains, as in results.json
    parity: dict[str, Any]  # of this model [onnx_format.Parity]

    def excess(self, budget: Budget) -> dict[str, float]:
        return budget.excess(self.candidate.p95, self.candidate.bytes, self.accuracy)

    def as_row(self) -> dict[str, Any]:
        return asdict(self.candidate) | {"domain": self.domain, "accuracy": self.accuracy, "name": self.candidate.name}


def fit(
    data: MultiDomainDataset,
    settings: Settings,
    output: Path,
    budget: Budget,
    *,
    also: Sequence[str] = (),
    most: int = 2,
) -> dict[str, Any]:
    """Find the best model for each domain within the budget, and write it into `output`/DOMAIN.

    Candidates are students of 1 to MOST_LAYERS layers cut from the base, and the checkpoints `also`, in float32 and
    int8, with whole and compact embedding tables, that read `max_length` tokens of a text, half of it, or long texts
    as the settings say. All are measured untrained. Of the students that fit in some form, the `most` largest are
    trained and scored on dev in every form that fits. The most accurate is delivered; of equals the smallest, then the
    fastest. A stopped search continues. fit.json holds all results.

    Raises InputError if no candidate fits, before anything is trained, or if no model of a domain is accurate enough;
    each with the limit that fails and by how much. Models of the other domains are still delivered.
    """
    require("onnx", "onnx")
    require("onnxscript", "onnx")
    work = output / WORK_FOLDER
    _check(data, settings, output, also)
    output.mkdir(parents=True, exist_ok=True)
    with waiting_lock(output / "fit.lock", "fits models here"):
        (output / PICTURE_FILE).unlink(missing_ok=True)  # of an earlier budget; the command line draws another
        measured = measure_candidates(data, settings, work, also)
        if budget.p95_ms is not None and any(candidate.busy for candidate in measured):
            again = f"rm {shlex.quote(str(work))}/{MEASURED}"
            notice(f"other work lengthened the times; when this machine is idle: `{again}`, and the same command")
        fitting = [c for c in measured if not budget.excess(c.p95, c.bytes)]
        forms = _train(data, settings, work, fitting, most) if fitting else []
        results, faults = _deliver(data, output, budget, measured, forms)
    if not fitting:
        nearest = min(measured, key=lambda c: sum(budget.excess(c.p95, c.bytes).values()))
        failing = "; ".join(budget.excess(nearest.p95, nearest.bytes))
        raise InputError(f"no candidate meets the budget on this machine; the closest is {nearest.name}: {failing}")
    delivered = ", ".join(results["delivered"]) or "none"
    raise_faults(f"domains without a model (delivered: {delivered}; all results: {output / FIT_FILE})", faults)
    return results


def _check(data: MultiDomainDataset, settings: Settings, output: Path, also: Sequence[str]) -> None:
    """Raise one InputError for all that would end `fit` after it has measured or trained."""
    problems = list[InputError]()
    with collecting(problems):
        dev = {example.domain for example in data.splits.get("dev", [])}
        if not dev:
            raise InputError(f"{data.name}: no dev split to choose on; add dev.jsonl, or pass one file to be split")
        if missing := [domain for domain in data.domains if domain not in dev]:
            raise InputError(f"{data.name}: dev has no rows of {listed(missing)}; add some, or drop the domain")
    if settings.method not in METHODS:
        problems.append(InputError(f"--method = {settings.method!r}: choose one of {', '.join(METHODS)}"))
    for student in ("layers=1", *also):
        with collecting(problems):
            check_models(settings.model_copy(update=FIXED_SETTINGS | {"student": student}), data.has_pairs)
            if settings.method in METHODS:
                _ = _run_of(data, settings, output / WORK_FOLDER, student).stages
    for path in (output / folder_name(domain) for domain in data.domains):
        if path.exists() and (read_manifest(path) or {}).get("step") != DELIVER:
            problems.append(InputError(f"{path}: already exists, but not from `metakd fit`; choose another --output"))
    if problems:
        raise InputError("\n".join(dict.fromkeys(map(str, problems))))


# --- Train what fits


def _train(data: MultiDomainDataset, settings: Settings, work: Path, fitting: list[Candidate], most: int) -> list[Form]:
    """Train the `most` largest students of the fitting candidates, and export them in every form that fits."""
    students = list(dict.fromkeys(c.student for c in fitting))[:most]
    runs = [_run_of(data, settings, work, student) for student in students]
    needed = [_minutes_left(run) for run in runs]
    forms = list[Form]()
    for i, (student, run) in enumerate(zip(students, runs, strict=True)):
        if needed[i]["students"]:
            teacher = 0.0 if is_done(run.folders.teacher, run.fingerprints.teach) else needed[i]["teacher"]
            left = teacher + sum(each["students"] for each in needed[i:])
            console.print(f"training {student} ({i + 1} of {len(runs)}), about {left:.1f} minutes left")
        forms += _train_one(run, [c for c in fitting if c.student == student])
    for cache in work.glob("teacher_cache-*"):
        shutil.rmtree(cache, ignore_errors=True)
    return forms


def _run_of(data: MultiDomainDataset, settings: Settings, work: Path, student: str) -> Run:
    long_texts = settings.long_texts
    if long_texts == "adaptive":
        long_texts = "mean"
        notice("--long-texts adaptive: models are timed and delivered with all windows, as with --long-texts mean")
    changed = settings.model_dump() | FIXED_SETTINGS | {"student": student, "long_texts": long_texts}
    return Run(work, Settings.build(changed), data, by_content=True)


def _minutes_left(run: Run) -> dict[str, float]:
    """Estimated minutes for the teacher and the students that are missing."""
    method, domains = run.settings.method, run.data.domains
    missing = [domain for domain in domains if not run.is_student_done(method, domain)]
    if not missing:
        return {"teacher": 0.0, "students": 0.0}
    needed = minutes(run)
    teacher = sum(needed.pop(step, 0.0) for step in ("weigh", "teach"))
    share = len(missing) / len(domains) if run.is_student_done(method, None) else 1.0
    return {"teacher": teacher, "students": sum(needed.values()) * share}


def _train_one(run: Run, candidates: Sequence[Candidate]) -> list[Form]:
    """Train the run's student for every domain, and export it as each candidate; what is finished is reused."""
    if run.settings.weights != "none":
        weigh(run)
    teach(run)
    trained = dict(zip(run.data.domains, distill_all(run, run.data.domains, [run.settings.method]), strict=True))
    calibration, forms = _calibrate(run, trained), list[Form]()
    for (domain, student), candidate in product(trained.items(), candidates):
        readings = [c.reading for c in candidates if (c.int8, c.compact) == (candidate.int8, candidate.compact)]
        folder = _export(run, domain, student, candidate, readings)
        exported, facts = replace(candidate, bytes=folder_bytes(folder / "model")), read_manifest(folder) or {}
        score, parity = facts["accuracy"][str(candidate.reading)], facts["parity"]
        forms.append(Form(domain, exported, score, folder / "model", run, calibration, parity))
    return forms


def _calibrate(run: Run, trained: Mapping[str, Path]) -> dict[str, Any]:
    """What dev decides of these students, once, and in each student's folder its temperature and its thresholds."""
    made = [run.fingerprints.distill(run.settings.method, domain) for domain in trained]
    reading = [getattr(run.settings, name) for name in ("max_length", *READING)]
    digest = fingerprint("calibration", STEP_VERSIONS["fit"], made, reading, run.data.fingerprint, run.settings.seed)
    path = run.folder / f"calibration-{digest[:16]}.json"
    if not path.is_file():
        temperatures, thresholds = write_temperatures(run, trained, {}), write_thresholds(run, {"student": trained}, {})
        write_json(path, temperatures | as_entry(thresholds))
    figures = dict[str, Any](json.loads(path.read_text(encoding="utf-8")))
    for domain, folder in trained.items():
        write_calibration(folder, recorded_calibration(figures, domain))
    return figures


def _export(run: Run, domain: str, student: Path, candidate: Candidate, readings: Sequence[Reading]) -> Path:
    """A folder with the model exported as the candidate, whose manifest has its accuracy on dev by each reading."""
    trained = run.fingerprints.distill(run.settings.method, domain)
    int8, compact = candidate.int8, candidate.compact
    made = STEP_VERSIONS["fit"], trained, load_calibration(student), run.data.fingerprint
    digest = fingerprint("form", made, int8, compact, ROWS, [reading.model_dump() for reading in readings], timed_on())
    folder, facts = run.folder / "forms" / digest[:16], dict[str, Any]()
    if not is_done(folder, digest):
        dev = of_domain(run.data.splits["dev"], domain)
        texts = of_domain(run.data.train, domain) if compact else None
        with step_folder(folder, "form", digest, facts) as partial:
            path = partial / "model"
            parity = write_model(TorchModel.load(student, "cpu"), path, dev, int8=int8, domain_examples=texts)
            models = {str(reading): load_as(path, reading) for reading in readings}
            facts["parity"] = parity._asdict()
            facts["accuracy"] = {name: accuracy(model, dev, run.data.labels) for name, model in models.items()}
    return folder


# --- Deliver the best


def _deliver(
    data: MultiDomainDataset, output: Path, budget: Budget, measured: Sequence[Candidate], forms: Sequence[Form]
) -> tuple[dict[str, Any], list[str]]:
    """Write the best form of each domain, and fit.json; returns the results, and why a domain has no model.

    If a larger budget has delivered a model for such a domain, it is removed.
    """
    delivered, faults = dict[str, Any](), list[str]()
    (output / FIT_FILE).unlink(missing_ok=True)  # which would describe other models than those that follow
    for domain in data.domains:
        domain_forms = [form for form in forms if form.domain == domain]
        meeting = [form for form in domain_forms if not form.excess(budget)]
        folder = output / folder_name(domain)
        if meeting:
            best = max(meeting, key=lambda form: (form.accuracy, -form.candidate.bytes, -form.candidate.p95))
            delivered[domain] = _write_best(data, best, folder)
            continue
        shutil.rmtree(folder, ignore_errors=True)
        if domain_forms:
            nearest = min(domain_forms, key=lambda form: sum(form.excess(budget).values()))
            faults.append(f"{domain}: {'; '.join(nearest.excess(budget))} ({nearest.candidate.name})")
    results = {
        "budget": asdict(budget),
        "candidates": [asdict(candidate) for candidate in measured],
        "tried": [form.as_row() for form in forms],
        "calibration": {form.candidate.student: form.calibration for form in forms},
        "delivered": delivered,
        "environment": environment(),
    }
    write_json(output / FIT_FILE, results)
    return results, faults


def _write_best(data: MultiDomainDataset, best: Form, folder: Path) -> dict[str, Any]:
    """Copy the model into `folder` with its card, scored on test if there is one; its row of fit.json."""
    row, candidate = best.as_row(), best.candidate
    dev, test = (of_domain(data.splits.get(split, []), best.domain) for split in ("dev", "test"))
    with step_folder(folder, DELIVER, "", row) as partial:
        shutil.copytree(best.folder, partial, dirs_exist_ok=True)
        trained_at = min(candidate.max_length, best.run.settings.max_length)
        how = {"max_length": trained_at, "reading": candidate.reading.model_dump()}
        description = json.loads((partial / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        write_json(partial / DESCRIPTION_FILE, description | how)
        set_max_length(partial, candidate.max_length)
        if test:
            row["test_accuracy"] = accuracy(OnnxModel.load(partial), test, data.labels)
        split, score = ("test", row["test_accuracy"]) if test else ("dev", best.accuracy)
        measured = Measured(score, round(candidate.bytes), candidate.median)
        run, reading = best.run.description(), candidate.reading
        notes = [parity_note(**best.parity), *[BUSY] * candidate.busy, *[COMPACT] * candidate.compact]
        notes += [CHOSEN_ON_DEV] * (not test)
        read = f"--long-texts {best.run.settings.long_texts}"
        notes += calibration_notes(best.calibration, best.domain, read, split)
        write_card(partial, run, best.domain, candidate.form, reading, measured, split, len(test or dev), notes)
    return row
