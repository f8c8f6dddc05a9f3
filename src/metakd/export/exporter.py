"""Students as exported models: checked against PyTorch, scored, timed, and shipped only if they hold."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from metakd.data.schema import Example
from metakd.data.splits import of_domain
from metakd.evaluation.costs import measure_latency, shipped_bytes
from metakd.evaluation.predictions import predictions_of
from metakd.export.model_cards import Card
from metakd.export.onnx_format import ship
from metakd.inference.classifier import Model
from metakd.inference.onnx_backend import OnnxModel
from metakd.inference.torch_backend import TorchModel
from metakd.models.hub import public_name
from metakd.pipeline.evaluate import check_scorable
from metakd.runs.run import Run
from metakd.utils.artifacts import is_done, step_folder
from metakd.utils.console import notice
from metakd.utils.errors import InputError, require

ELSEWHERE = 400  # texts of other domains that a student with a compact table is scored on


class Measured(NamedTuple):
    """A model on a domain's held-out examples."""

    accuracy: float
    bytes: int  # weights, tokenizer, configuration
    milliseconds: float  # median of one text at a time, tokenising included


class Exported(NamedTuple):
    """One student in PyTorch and in ONNX Runtime."""

    domain: str
    examples: int
    before: Measured
    after: Measured
    elsewhere: tuple[float, float] | None = None  # accuracy on other domains' text, before and after a cut


def export(
    run: Run, output: Path, *, int8: bool, cut: bool = False, max_drop: float = 0.005, force: bool = False
) -> list[Exported]:
    """Write a folder for each student of a finished run into `output`, each usable without torch.

    `int8` quantises weights; `cut` keeps of each table of embeddings the rows that its domain reads most, and puts the
    others together from parts.
    Raises InputError where the run has no students, or where they cannot be shipped: they lose more than `max_drop` of
    accuracy on average over domains, or one text takes longer than in PyTorch (unless `force`); CheckError where
    float32 differs from PyTorch. Nothing is left in `output` then.
    """
    require("onnx", "onnx")
    require("onnxscript", "onnx")
    split, method = check_scorable(run), run.settings.method
    folders = {domain: run.student_folder(method, domain) for domain in run.data.domains}
    missing = [d for d, f in folders.items() if not is_done(f, run.distill_fingerprint(method, d))]
    if missing:
        raise InputError(f"{run.folder}: no finished student of {', '.join(missing)}; `metakd run --resume` trains it")
    if output.exists():
        raise InputError(f"{output} is there already; choose another --output")
    facts: dict[str, Any] = {"int8": int8, "vocabulary": "domain" if cut else "keep", "run": run.description()}
    with step_folder(output, "export", "", facts) as partial:
        found = [
            _export(folder, domain, run.data.splits[split], run, partial, int8, cut)
            for domain, folder in folders.items()
        ]
        students = [own._asdict() | {"before": own.before._asdict(), "after": own.after._asdict()} for own in found]
        facts |= {"split": split, "students": students}
        hold(found, max_drop, force)
        for own, folder in zip(found, folders.values(), strict=True):
            form = f"{run.settings.student}, {'int8' if int8 else 'float32'}, {run.settings.max_length} tokens"
            card_of(run, own.domain, form, own.after, split, own.examples, *_notes(own)).write(partial / folder.name)
    return found


def _export(
    folder: Path, domain: str, scored: list[Example], run: Run, output: Path, int8: bool, cut: bool
) -> Exported:
    examples, others = of_domain(scored, domain), [e for e in scored if e.domain != domain]
    place, before = output / folder.name, TorchModel.load(folder)
    own = of_domain(run.data.train, domain) if cut else None
    ship(TorchModel.load(folder), place, examples, run.settings.max_length, int8=int8, own=own)
    after = OnnxModel.load(place, torch.get_num_threads())
    sizes: list[tuple[Model, int]] = [(before, shipped_bytes(folder)), (after, folder_bytes(place))]
    was, is_now = (
        Measured(accuracy(model, examples, run.data.labels), size, measure_latency(model, examples)["median"])
        for model, size in sizes
    )
    elsewhere = None
    if cut and others:
        asked = random.Random(0).sample(others, min(len(others), ELSEWHERE))
        elsewhere = accuracy(before, asked, run.data.labels), accuracy(after, asked, run.data.labels)
    return Exported(domain, len(examples), was, is_now, elsewhere)


def card_of(run: Run, domain: str, form: str, found: Measured, scored: str, examples: int, *notes: str) -> Card:
    """The card of one domain's model of `run`, as `found` on so many `examples` of the split `scored`."""
    described = run.description()
    return Card(
        domain=domain,
        labels=run.data.labels,
        base=public_name(run.settings.base),
        method=run.settings.method,
        form=form,
        data=public_name(described["data"] or "tables in memory"),
        split=scored,
        examples=examples,
        accuracy=found.accuracy,
        megabytes=found.bytes / 1e6,
        milliseconds=found.milliseconds,
        licences=described["licences"],
        notes=notes,
    )


def _notes(own: Exported) -> list[str]:
    lost = 100 * (own.after.accuracy - own.before.accuracy)
    found = [f"Beside the same model in PyTorch, before it was exported: {lost:+.1f} points of accuracy."]
    if own.elsewhere:
        was, is_now = (100 * share for share in own.elsewhere)
        found.append(
            "Its embeddings are exact for what this domain reads most, and approximate elsewhere. "
            f"On texts of others: {is_now:.1f}, before {was:.1f}."
        )
    return found


def accuracy(model: Model, examples: Sequence[Example], labels: list[str]) -> float:
    said = predictions_of(examples, labels, model)
    return float((said.truth == said.predicted).mean())


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def hold(found: Sequence[Exported], max_drop: float, force: bool) -> None:
    """InputError, or a notice where it is forced, for what ought not to be shipped."""
    falls = {own.domain: own.before.accuracy - own.after.accuracy for own in found}
    faults = [
        f"{own.domain}: {own.after.milliseconds:.2f} ms a text, {own.before.milliseconds:.2f} in PyTorch"
        for own in found
        if own.after.milliseconds > own.before.milliseconds
    ]
    if (lost := float(np.mean([*falls.values()]))) > max_drop:
        each = ", ".join(f"{domain} {100 * fall:.1f}" for domain, fall in falls.items())
        allowed = f"--max-drop allows {100 * max_drop:.2f}"
        faults.append(f"accuracy falls by {100 * lost:.2f} points on average ({each}); {allowed}")
    if faults and not force:
        raise InputError.collect("not exported; --force ships it nevertheless", faults)
    for fault in faults:
        notice(fault)
