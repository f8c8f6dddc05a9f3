"""One classifier as a folder that runs without torch: ONNX in float32 or int8, tokenizer, labels."""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from metakd.data.schema import Example
from metakd.export.onnx_graph import read_one_token, strip_notes
from metakd.inference.classifier import Model
from metakd.inference.onnx_backend import DESCRIPTION_FILE, MODEL_FILE, TOKENIZER_FILE, OnnxModel
from metakd.inference.torch_backend import TorchModel
from metakd.models.attention import attend_plainly
from metakd.models.compact_embedding import ROWS, CompactEmbedding, counted
from metakd.utils.artifacts import write_text
from metakd.utils.errors import CheckError, InputError, first_line

CLOSE = 1e-4  # difference of float32 probabilities that rounding explains
CHECKED = 64  # texts that PyTorch and ONNX Runtime are compared on


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
