"""A budget in, small models out: what each candidate costs is measured first, and only what fits is trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch

from metakd.artifacts import environment, fingerprint, is_done, read_manifest, step_folder, write_json
from metakd.checkpoints import resolve
from metakd.config import Settings
from metakd.distillation import distill_all
from metakd.domains import MultiDomainDataset, folder_name, of_domain
from metakd.encoders import load_config, load_encoder, load_tokenizer, map_layers
from metakd.errors import InputError, require
from metakd.examples import Example
from metakd.export import Measured, accuracy, card_of, folder_bytes, quantize, ship, time_of
from metakd.locks import alone
from metakd.onnx_model import DESCRIPTION_FILE, MODEL_FILE, OnnxModel
from metakd.pipeline import teach, weigh
from metakd.planning import minutes
from metakd.progress import console
from metakd.runs import Run
from metakd.students import cut_student, layers_to_cut
from metakd.torch_model import TorchModel
from metakd.vocabulary import ROWS, compact_bytes

MOST_LAYERS = 6  # of the students that are tried
FIT_FILE, WORK_FOLDER = "fit.json", "work"


@dataclass(frozen=True)
class Budget:
    """What a model may cost on this machine, and what it has to be worth; None where that does not matter."""

    p95_ms: float | None = None  # 95th percentile of one text at a time, tokenising included
    max_mb: float | None = None  # of all that is shipped
    min_accuracy: float | None = None  # of each domain, on dev

    def excess(self, p95: float, size: float, accuracy: float | None = None) -> dict[str, float]:
        """Which demands fail, by how much and as a share of the demand; accuracy counts once it is known."""
        found = {}
        if self.p95_ms is not None and (over := p95 - self.p95_ms) > 0:
            found[f"p95 {p95:.2f} ms, {over:.2f} too slow"] = over / self.p95_ms
        if self.max_mb is not None and (over := size / 1e6 - self.max_mb) > 0:
            found[f"{size / 1e6:.2f} MB, {over:.2f} too large"] = over / self.max_mb
        if self.min_accuracy is not None and accuracy is not None and (over := self.min_accuracy - accuracy) > 0:
            found[f"accuracy {accuracy:.3f}, {over:.3f} too low"] = over / self.min_accuracy
        return found


@dataclass(frozen=True)
class Candidate:
    """A way to make a model, and what one of its kind costs here; nothing of it depends on training."""

    student: str  # as in the setting: 'layers=3', or a checkpoint
    int8: bool
    cut: bool  # whether its table of embeddings is cut to the domain
    max_length: int
    p95: float = 0.0
    median: float = 0.0
    bytes: float = 0.0

    @property
    def name(self) -> str:
        precision, table = "int8" if self.int8 else "float32", "compact table" if self.cut else "whole table"
        return f"{self.student}, {precision}, {table}, {self.max_length} tokens"


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
    if not data.splits.get("dev"):
        raise InputError(f"{data.name}: no dev split to choose by; add dev.jsonl, or hand over one file to be cut")
    output.mkdir(parents=True, exist_ok=True)
    with alone(output / "fit.lock", "fits models here"):
        measured = _measured(data, settings, output / WORK_FOLDER, also)
        fitting = [c for c in measured if not budget.excess(c.p95, c.bytes)]
        facts: dict[str, Any] = {"budget": asdict(budget), "candidates": [asdict(c) for c in measured]}
        if not fitting:
            nearest = min(measured, key=lambda c: sum(budget.excess(c.p95, c.bytes).values()))
            raise InputError(
                f"no candidate meets the budget on this machine; the nearest, {nearest.name}: "
                + "; ".join(budget.excess(nearest.p95, nearest.bytes))
            )
        chosen = list(dict.fromkeys(c.student for c in fitting))[:most]
        tried = list[Form]()
        for student, run in _in_turn(data, settings, output / WORK_FOLDER, chosen):
            tried += _forms(run, [c for c in fitting if c.student == student])
        for cache in (output / WORK_FOLDER).glob("teacher_cache-*"):
            shutil.rmtree(cache, ignore_errors=True)
        return _deliver(data, output, budget, facts, tried)


# --- What candidates cost, untrained


def _measured(data: MultiDomainDataset, settings: Settings, work: Path, also: Sequence[str]) -> list[Candidate]:
    """All candidates, the largest student first; what was measured before on this machine is read again."""
    layers = load_config(resolve(settings.base)).num_hidden_layers
    students = [*also, *(f"layers={n}" for n in range(min(MOST_LAYERS, layers), 0, -1))]
    found = []
    for count, student in enumerate(students, 1):
        what = student, settings.base, settings.max_length, data.fingerprint, ROWS
        mark = fingerprint("measure", what, environment()["processor"], torch.get_num_threads())
        place = work / f"measured-{mark[:16]}.json"
        if not place.is_file():
            console.print(f"measuring {student} ({count} of {len(students)})")
            write_json(place, [asdict(c) for c in _measure(data, settings, work, student)])
        found += [Candidate(**own) for own in json.loads(place.read_text(encoding="utf-8"))]
    return found


def _measure(data: MultiDomainDataset, settings: Settings, work: Path, student: str) -> list[Candidate]:
    model, examples = _untrained(settings, student, data.labels), data.splits["dev"]
    rows, width = model.network.get_input_embeddings().weight.shape
    folder, found = work / ".measured.partial", []
    shutil.rmtree(folder, ignore_errors=True)
    ship(model, folder, examples, settings.max_length)
    for int8 in (False, True):
        if int8:
            quantize(folder / MODEL_FILE)
        size = folder_bytes(folder)
        item = 1 if int8 else 4
        saved = rows * width * item - compact_bytes(rows, width, item) if rows > ROWS else 0
        for max_length in (settings.max_length, settings.max_length // 2):
            took = time_of(_loaded(folder, max_length), examples)
            for cut in (False, True) if saved else (False,):
                costs = took["p95"], took["median"], float(size - saved * cut)
                found.append(Candidate(student, int8, cut, max_length, *costs))
    shutil.rmtree(folder)
    return found


def _untrained(settings: Settings, student: str, labels: list[str]) -> TorchModel:
    layers = layers_to_cut(student)
    if layers is None:
        folder = resolve(student)
        return TorchModel(load_encoder(folder, labels), load_tokenizer(folder, settings.max_length))
    folder = resolve(settings.base)
    base = load_encoder(folder, labels)
    student = cut_student(base, map_layers(layers, base.config.num_hidden_layers))
    return TorchModel(student, load_tokenizer(folder, settings.max_length))


def _loaded(folder: Path, max_length: int) -> OnnxModel:
    """The exported model, reading no more than `max_length` tokens."""
    model = OnnxModel.load(folder, torch.get_num_threads())
    model.tokenizer.enable_truncation(max_length)
    return model


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
    changed = {"layer_map": "auto", "rival": False, "keep_cache": True, "track": "none"}
    runs = [
        Run(work, Settings.build(settings.model_dump() | changed | {"student": student}), data, by_content=True)
        for student in students
    ]
    left = [_minutes_left(run) for run in runs]
    for place, (student, run) in enumerate(zip(students, runs, strict=True)):
        if left[place]["students"]:
            teacher = 0.0 if is_done(run.teacher_folder, run.teach_fingerprint) else left[place]["teacher"]
            about = teacher + sum(own["students"] for own in left[place:])
            console.print(f"training {student} ({place + 1} of {len(runs)}), about {about:.1f} minutes left")
        yield student, run


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
        mark = fingerprint("form", run.distill_fingerprint(settings.method, domain), int8, cut, ROWS, lengths)
        folder, facts = run.folder / "forms" / mark[:16], dict[str, Any]()
        dev = of_domain(data.splits["dev"], domain)
        if not is_done(folder, mark):
            with step_folder(folder, "form", mark, facts) as partial:
                own = of_domain(data.train, domain) if cut else None
                ship(TorchModel.load(trained), partial / "model", dev, settings.max_length, int8=int8, own=own)
                facts["measured"] = [
                    _scored(_loaded(partial / "model", length), dev, data.labels) | {"max_length": length}
                    for length in lengths
                ]
        for own_costs in (read_manifest(folder) or {})["measured"]:
            score = own_costs.pop("accuracy")
            costs = own_costs | {"bytes": folder_bytes(folder / "model")}
            found.append(Form(domain, Candidate(settings.student, int8, cut, **costs), score, folder / "model", run))
    return found


def _scored(model: OnnxModel, examples: Sequence[Example], labels: list[str]) -> dict[str, float]:
    return time_of(model, examples) | {"accuracy": accuracy(model, examples, labels)}


# --- What is delivered


def _deliver(
    data: MultiDomainDataset, output: Path, budget: Budget, facts: dict[str, Any], tried: Sequence[Form]
) -> dict[str, Any]:
    """Write the best form of each domain that has one, and what was found; InputError for domains that have none."""
    delivered, faults = dict[str, Any](), []
    for domain in data.domains:
        own = [form for form in tried if form.domain == domain]
        dev, test = (of_domain(data.splits.get(split, []), domain) for split in ("dev", "test"))
        meeting = [form for form in own if not _excess(budget, form)]
        if not meeting:
            best = min(own, key=lambda f: sum(_excess(budget, f).values()))
            faults.append(f"{domain}: {'; '.join(_excess(budget, best))} ({best.candidate.name})")
            continue
        best = max(meeting, key=lambda f: (f.accuracy, -f.candidate.bytes, -f.candidate.p95))
        delivered[domain] = _told(best)
        place = output / folder_name(domain)
        with step_folder(place, "deliver", "", delivered[domain]) as partial:
            shutil.copytree(best.folder, partial, dirs_exist_ok=True)
            description = json.loads((partial / DESCRIPTION_FILE).read_text(encoding="utf-8"))
            write_json(partial / DESCRIPTION_FILE, description | {"max_length": best.candidate.max_length})
            if test:
                delivered[domain]["test_accuracy"] = accuracy(OnnxModel.load(partial), test, data.labels)
            split, score = ("test", delivered[domain]["test_accuracy"]) if test else ("dev", best.accuracy)
            cost = Measured(score, round(best.candidate.bytes), best.candidate.median)
            card_of(best.run, domain, best.candidate.name, cost, split, len(test or dev)).write(partial)
    found = facts | {"tried": [_told(form) for form in tried], "delivered": delivered, "environment": environment()}
    write_json(output / FIT_FILE, found)
    if faults:
        there = ", ".join(delivered) or "none"
        raise InputError.collect(
            f"no model meets the budget (delivered: {there}; all that was tried: {output / FIT_FILE})", faults
        )
    return found


def _excess(budget: Budget, form: Form) -> dict[str, float]:
    return budget.excess(form.candidate.p95, form.candidate.bytes, form.accuracy)


def _told(form: Form) -> dict[str, Any]:
    return asdict(form.candidate) | {"domain": form.domain, "accuracy": form.accuracy, "name": form.candidate.name}
