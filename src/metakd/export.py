"""Students as ONNX files, in float32 or int8: checked against PyTorch, scored, timed, and shipped only if they hold."""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import random
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from metakd.answers import predictions_of, shipped_bytes, time_of
from metakd.artifacts import is_done, step_folder, write_text
from metakd.attention import attend_plainly
from metakd.cards import Card
from metakd.checkpoints import public_name
from metakd.domains import of_domain
from metakd.errors import CheckError, InputError, first_line, require
from metakd.examples import Example
from metakd.inference import Model
from metakd.onnx_graph import read_one_token, strip_notes
from metakd.onnx_model import DESCRIPTION_FILE, MODEL_FILE, TOKENIZER_FILE, OnnxModel
from metakd.progress import notice
from metakd.runs import Run
from metakd.scoring import check_scorable
from metakd.torch_model import TorchModel
from metakd.vocabulary import ROWS, CompactEmbedding, counted

CLOSE = 1e-4  # difference of float32 probabilities that rounding explains
ELSEWHERE = 400  # texts of other domains that a student with a compact table is scored on
CHECKED = 64  # texts that PyTorch and ONNX Runtime are compared on


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
        Measured(accuracy(model, examples, run.data.labels), size, time_of(model, examples)["median"])
        for model, size in sizes
    )
    elsewhere = None
    if cut and others:
        asked = random.Random(0).sample(others, min(len(others), ELSEWHERE))
        elsewhere = accuracy(before, asked, run.data.labels), accuracy(after, asked, run.data.labels)
    return Exported(domain, len(examples), was, is_now, elsewhere)


def ship(
    model: TorchModel,
    folder: Path,
    examples: Sequence[Example],
    max_length: int,
    *,
    int8: bool = False,
    own: Sequence[Example] | None = None,
) -> None:
    """Write `folder`, which runs without torch: ONNX, tokenizer, configuration, labels; `model` is used up by it.

    `own` are the texts whose pieces keep their embeddings where the table is to be compact. Raises CheckError where
    ONNX Runtime in float32 says otherwise of `examples` than PyTorch, InputError for what cannot be exported.
    """
    folder.mkdir(parents=True)
    for part in (model.tokenizer, model.network.config):
        part.save_pretrained(folder)
    shrink_json(folder / TOKENIZER_FILE)
    if own is not None:
        _compact(model, own)
    write_onnx(model, folder / MODEL_FILE)
    longest = min(model.tokenizer.model_max_length, max_length)
    description = {"labels": model.labels, "max_length": longest, "pad_token_id": model.tokenizer.pad_token_id}
    write_text(folder / DESCRIPTION_FILE, json.dumps(description, indent=2, ensure_ascii=False) + "\n")
    _check_same(model, OnnxModel.load(folder), examples[:CHECKED], folder)
    if int8:
        quantize(folder / MODEL_FILE)


def shrink_json(path: Path) -> None:
    """The same without blanks, which are a third of a tokenizer's file."""
    state = json.loads(path.read_text(encoding="utf-8"))
    write_text(path, json.dumps(state, ensure_ascii=False, separators=(",", ":")))


def _compact(model: TorchModel, own: Sequence[Example]) -> None:
    """Give the model a table of embeddings that keeps the rows its domain reads most, unless it has no more anyway."""
    table = model.network.get_input_embeddings().weight.detach()
    if len(table) > ROWS:
        model.network.set_input_embeddings(CompactEmbedding(table, counted(model.tokenizer, own), ROWS))


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


def write_onnx(model: TorchModel, path: Path) -> None:
    """The classifier as one ONNX file: int64 ids and masks of (batch, length), both free, to logits (batch, labels)."""
    read = inspect.signature(model.network.forward).parameters
    names = [name for name in model.tokenizer.model_input_names if name in read]
    example = dict(model.tokenizer(["one text", "and one more"], padding=True, return_tensors="pt"))
    inputs = {name: example[name] for name in names}
    free = {name: {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")} for name in names}
    attend_plainly(model.network)
    try:
        with _quiet_exporter():
            program = torch.onnx.export(
                model.network,
                kwargs=inputs,
                input_names=names,
                output_names=["logits"],
                dynamic_shapes=free,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        kind = model.network.config.model_type
        raise InputError(f"a model of type {kind!r} cannot be exported to ONNX ({_first_cause(error)})") from None
    assert program is not None
    read_one_token(program.model)
    strip_notes(program.model)
    program.optimize()
    program.save(path)


def _first_cause(error: BaseException) -> str:
    """Of what first went wrong, which the exporter wraps several times."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without the exporter's words on what other models would need."""
    log, level = logging.getLogger("torch.onnx"), logging.getLogger("torch.onnx").level
    log.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    log.setLevel(level)


def quantize(path: Path) -> None:
    """Weights of matrix products and embeddings in int8, scales found anew for each input (dynamic quantisation)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / path.name
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        quantize_dynamic(str(prepared), str(path), weight_type=QuantType.QInt8, per_channel=True)


def _check_same(before: Model, after: Model, examples: Sequence[Example], place: Path) -> None:
    difference = float(np.abs(before.probabilities(examples) - after.probabilities(examples)).max())
    if not difference <= CLOSE:
        raise CheckError(f"{place.name}: ONNX Runtime's probabilities differ from PyTorch's by {difference:.2g}")


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
