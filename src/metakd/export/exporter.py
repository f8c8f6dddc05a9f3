"""Students as ONNX models: compared with PyTorch, scored and timed, and refused if they lose accuracy or speed."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from metakd.data.schema import Example
from metakd.data.splits import of_domain
from metakd.data.windows import Reading
from metakd.evaluation.costs import Latency, measure_latencies, shipped_bytes
from metakd.evaluation.predictions import predictions_of
from metakd.evaluation.tables import ALIKE
from metakd.export.model_cards import BUSY, COMPACT, Measured, calibration_notes, in_words, parity_note, write_card
from metakd.export.onnx_format import Parity, write_model
from metakd.export.web_page import FOLDER as WEB_FOLDER
from metakd.export.web_page import fetch_library, write_page
from metakd.inference.calibration import load_calibration, recorded_calibration
from metakd.inference.classifier import Classifier
from metakd.inference.layout import EXPORT, MODEL
from metakd.inference.long_texts import Model, load_reading
from metakd.inference.onnx_backend import OnnxModel
from metakd.inference.torch_backend import TorchModel
from metakd.models.embeddings import ROWS
from metakd.pipeline.evaluate import check_scorable
from metakd.runs.folders import RESULTS_FILE
from metakd.runs.run import Run
from metakd.utils.artifacts import remedy, step_folder, write_manifest
from metakd.utils.console import notice
from metakd.utils.errors import InputError, as_input_error, raise_faults, require

LEAST_SAME = 0.8  # share of texts whose label an export has to leave as it is
ELSEWHERE = 400  # texts of other domains that a student with a compact table is scored on


class Exported(NamedTuple):
    """One student in PyTorch and in ONNX Runtime; one of the students was timed, as all have one architecture."""

    domain: str
    examples: int
    before: Measured
    after: Measured
    elsewhere: tuple[float, float] | None = None  # accuracy on other domains' text before and after, if compact
    busy: bool = False  # whether other work lengthened the times
    compact: bool = False  # whether its embedding table is, which takes one of more than ROWS
    parity: Parity | None = None

    def as_row(self) -> dict[str, Any]:
        """Its row of the manifest."""
        parts = {"before": self.before, "after": self.after, "parity": self.parity}
        return self._asdict() | {name: part._asdict() for name, part in parts.items() if part}


def export(
    run: Run,
    output: Path,
    *,
    int8: bool,
    compact: bool = False,
    web: bool = False,
    max_drop: float = 0.005,
    force: bool = False,
) -> list[Exported]:
    """Write a folder for each student of a finished run into `output`, each usable without torch.

    Args:
        int8: Quantise the weights.
        compact: Keep the embeddings of the most frequent tokens of each student's domain, and approximate others.
        web: Add a page in which the models run.
        max_drop: Accuracy that may be lost on average over domains.
        force: Export students that lose more, or that are slower than in PyTorch, with a notice.

    Raises:
        InputError: There are no students, they may not be exported without `force`, or npm fetches no page.
        CheckError: The float32 model differs from PyTorch. Neither leaves anything in `output`.
    """
    (split, calibration), method = _check(run, output, web), run.settings.method
    facts: dict[str, Any] = {"int8": int8, "vocabulary": "domain" if compact else "keep", "run": run.description()}
    reading = load_reading(_trained(run, run.data.domains[0])) or Reading(max_length=run.settings.max_length)
    with step_folder(output, EXPORT, "", facts) as partial:
        if web:
            fetch_library(partial / WEB_FOLDER)
        folders = {domain: partial / run.folders.student(method, domain).name for domain in run.data.domains}
        parities = [_write(run, split, domain, folder, int8, compact) for domain, folder in folders.items()]
        latencies = _time(run, split, *next(iter(folders.items())))
        scored = [_score(run, split, domain, folder, compact, *latencies) for domain, folder in folders.items()]
        exported = [e._replace(parity=parity) for e, parity in zip(scored, parities, strict=True)]
        facts |= {"split": split, "students": [e.as_row() for e in exported]}
        refuse_losses(exported, *latencies, max_drop, force)
        for e in exported:
            exported_as, scores = in_words(run.settings.student, int8, e.compact), (e.after, split, e.examples)
            notes = _notes(e) + calibration_notes(calibration, e.domain, str(reading), split)
            write_card(folders[e.domain], facts["run"], e.domain, exported_as, reading, *scores, notes)
            write_manifest(folders[e.domain], {"step": MODEL, "domain": e.domain})
        if web:
            write_page(partial, {domain: folder.name for domain, folder in folders.items()})
    return exported


def _check(run: Run, output: Path, web: bool) -> tuple[str, dict[str, Any]]:
    """The split to score on, and what dev decided; InputError for a run that cannot be exported to `output`."""
    require("onnx", "onnx")
    require("onnxscript", "onnx")
    split, method, faults = check_scorable(run), run.settings.method, list[str]()
    if output.exists():
        faults.append(f"{output} already exists; choose another --output")
    if web and run.data.has_pairs:
        faults.append("--web: the page reads single texts, and these models read pairs; leave it out")
    if missing := [d for d in run.data.domains if not run.is_student_done(method, d)]:
        faults.append(f"{', '.join(missing)}: no finished student; {remedy(run.folder)}")
    raise_faults("not exported", faults)
    recorded = _calibration(run)
    known = [load_calibration(_trained(run, d)) == recorded_calibration(recorded, d) for d in run.data.domains]
    if None in [load_reading(_trained(run, d)) for d in run.data.domains] or not all(known):
        raise InputError(
            f"{run.folder}: not scored, which decides how sure students are, which labels they give, and how they read "
            f"long texts; {remedy(run.folder, 'evaluate')}"
        )
    return split, recorded


def _calibration(run: Run) -> dict[str, Any]:
    """What results.json says of how sure the students are, and of which labels they give."""
    path = run.folder / RESULTS_FILE
    if not path.is_file():
        return {}
    with as_input_error(f"{path} is damaged; {remedy(run.folder, 'evaluate')}"):
        figures = dict(json.loads(path.read_text(encoding="utf-8")).get("calibration", {}))
        if {*figures} - {"thresholds"} and not {"temperatures", "texts", "before", "after"} <= {*figures}:
            raise ValueError("calibration is not whole")
        _ = [recorded_calibration(figures, domain) for domain in run.data.domains]
    return figures


def _trained(run: Run, domain: str) -> Path:
    return run.folders.student(run.settings.method, domain)


def _write(run: Run, split: str, domain: str, folder: Path, int8: bool, compact: bool) -> Parity:
    """Write one student into `folder`; how far the file agrees with PyTorch."""
    model, examples = TorchModel.load(_trained(run, domain), "cpu"), of_domain(run.data.splits[split], domain)
    domain_examples = of_domain(run.data.train, domain) if compact else None
    return write_model(model, folder, examples, int8=int8, domain_examples=domain_examples)


def _time(run: Run, split: str, domain: str, folder: Path) -> tuple[Latency, Latency]:
    """The latency of one student in PyTorch and of its export in `folder`, timed alternately."""
    before = Classifier(TorchModel.load(_trained(run, domain), "cpu"))
    after = Classifier(OnnxModel.load(folder, torch.get_num_threads()))
    contenders = {"before": before.predict_examples, "after": after.predict_examples}
    latencies = measure_latencies(contenders, run.data.splits[split], run.settings.seed)
    return latencies["before"], latencies["after"]


def _score(run: Run, split: str, domain: str, folder: Path, compact: bool, before: Latency, after: Latency) -> Exported:
    """The scores of one student in PyTorch and of its export in `folder`, beside their latencies."""
    labels, examples = run.data.labels, of_domain(run.data.splits[split], domain)
    trained = TorchModel.load(_trained(run, domain))
    models: list[Model] = [trained, OnnxModel.load(folder, torch.get_num_threads())]
    sizes, times = (shipped_bytes(_trained(run, domain)), folder_bytes(folder)), (before, after)
    in_pytorch, in_onnx = (
        Measured(accuracy(model, examples, labels), size, latency.summary()["median"])
        for model, size, latency in zip(models, sizes, times, strict=True)
    )
    known = trained.labels
    of_others = [e for e in run.data.splits[split] if e.domain != domain] if compact else []
    others = [e for e in of_others if {*e.classes} <= {*known}]
    sample = random.Random(0).sample(others, min(len(others), ELSEWHERE))
    elsewhere = (accuracy(models[0], sample, labels), accuracy(models[1], sample, labels)) if sample else None
    is_compact = compact and len(trained.network.get_input_embeddings().weight) > ROWS
    return Exported(domain, len(examples), in_pytorch, in_onnx, elsewhere, after.busy, is_compact)


def _notes(exported: Exported) -> list[str]:
    """What the export has cost, as sentences of the card."""
    gain = 100 * (exported.after.accuracy - exported.before.accuracy)
    notes = [f"Compared with the same model in PyTorch, before the export: {gain:+.1f} percentage points of accuracy."]
    notes += [parity_note(*exported.parity)] if exported.parity else []
    notes += [BUSY] * exported.busy + [COMPACT] * exported.compact
    if exported.elsewhere:
        before, after = (f"{100 * accuracy:.1f}" for accuracy in exported.elsewhere)
        notes.append(f"Accuracy on texts of other domains: {after} percent, {before} before.")
    return notes


def accuracy(model: Model, examples: Sequence[Example], labels: list[str]) -> float:
    return float(predictions_of(examples, labels, model).right.mean())


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def refuse_losses(exported: Sequence[Exported], before: Latency, after: Latency, max_drop: float, force: bool) -> None:
    """Raise InputError if students lose more than `max_drop` on average or are slower; with `force` a notice.

    Also if one gives less than LEAST_SAME of the texts that it was checked on the label of PyTorch. Slower: the whole
    interval of the median of `after` divided by `before` is above ALIKE. If other processes used the cores meanwhile,
    times decide nothing.
    """
    faults, (low, high) = list[str](), after.times(before)
    if low > ALIKE and not after.busy:
        times = "{:.2f} ms per text, but {:.2f} in PyTorch".format(*(e.summary()["median"] for e in (after, before)))
        faults.append(f"{times}: {low:.2f} to {high:.2f} times as slow, with 95 % confidence")
    drops = {e.domain: e.before.accuracy - e.after.accuracy for e in exported}
    if (average := float(np.mean([*drops.values()]))) > max_drop:
        each = ", ".join(f"{domain} {100 * drop:.1f}" for domain, drop in drops.items())
        allowed = f"--max-drop allows {100 * max_drop:.2f}"
        faults.append(f"accuracy falls by {100 * average:.2f} percentage points on average ({each}); {allowed}")
    faults += [
        f"{e.domain}: only {e.parity.same_label} of {e.parity.texts} texts get the label that they have in PyTorch"
        for e in exported
        if e.parity and e.parity.same_label < LEAST_SAME * e.parity.texts
    ]
    if not force:
        raise_faults("not exported; export anyway with --force", faults)
    for fault in faults:
        notice(fault)
