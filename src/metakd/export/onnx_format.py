"""One classifier as a folder that runs without torch: ONNX in float32 or int8, tokenizer, labels."""

import contextlib
import inspect
import logging
import math
import tempfile
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from metakd.data.schema import Example
from metakd.export.standard_files import write_standard_files
from metakd.inference.layout import DESCRIPTION_FILE, QUANTIZED, WHOLE
from metakd.inference.long_texts import Model, Probabilities
from metakd.inference.onnx_backend import OnnxModel
from metakd.inference.torch_backend import TorchModel
from metakd.models.attention import set_plain_attention
from metakd.models.embeddings import ROWS, CompactEmbedding, count_tokens, embedding_scale
from metakd.models.linear import use_torch_linear
from metakd.utils.artifacts import write_json
from metakd.utils.errors import CheckError, InputError, error_summary

TOLERANCE = 1e-4  # difference of float32 probabilities that rounding explains
CHECKED = 64  # texts that PyTorch and ONNX Runtime are compared on
MOST_TOKENS = 512  # tokens up to which it is tried how many the model can read at once
WITHOUT_EFFECT = {"_name_or_path", "architectures", "id2label", "label2id", "text_pairs"}  # on the graph
WITH_WEIGHTS = ["Conv", "Gather", "MatMul"]  # not Transpose, for whose integer inputs ONNX Runtime logs a warning
_GRAPHS = dict[str, Any]()  # by architecture, each without its weights


class Parity(NamedTuple):
    """How an exported file answers the texts that it was checked on, beside the same model in PyTorch."""

    texts: int
    same_label: int  # texts
    difference: float  # the largest of a probability


def write_model(
    model: TorchModel,
    folder: Path,
    examples: Sequence[Example],
    *,
    int8: bool = False,
    domain_examples: Sequence[Example] | None = None,
) -> Parity:
    """Write ONNX file, tokenizer, configuration and labels into the new `folder`; `model` is changed in place.

    With `domain_examples` the embedding table becomes compact: their most frequent tokens keep their rows. Returns how
    far the file that stays agrees with the `model` that came, on some of the `examples`. Raises CheckError if ONNX
    Runtime in float32 does not do what PyTorch does, InputError for a model that cannot be exported.
    """
    (folder / WHOLE).parent.mkdir(parents=True)
    write_standard_files(model, folder, int8)
    by_length = sorted(examples, key=lambda e: len(e.text) + len(e.text_pair or ""), reverse=True)
    texts = by_length[:: math.ceil(len(by_length) / CHECKED)]
    before, table = _of_whole_texts(model, texts), model.network.get_input_embeddings().weight.detach()
    if domain_examples is not None and len(table) > ROWS:
        counts = count_tokens(model.tokenizer, domain_examples)
        scale = embedding_scale(model.network.get_input_embeddings())
        model.network.set_input_embeddings(CompactEmbedding(table * scale, counts, ROWS))
    write_onnx(model, folder / WHOLE)
    thresholds = model.thresholds if model.several_labels else None
    description = {
        "labels": model.labels,
        "max_length": model.max_length,
        "reading": model.reading.model_dump(),
        "most_tokens": model.readable_tokens(max(MOST_TOKENS, model.reading.max_length)),
        "pad_token_id": model.tokenizer.pad_token_id,
        "pairs": model.pairs,
    } | ({} if thresholds is None else {"several_labels": True, "thresholds": thresholds.tolist()})
    write_json(folder / DESCRIPTION_FILE, description)
    in_onnx = _of_whole_texts(OnnxModel.load(folder), texts)
    difference = _parity(_of_whole_texts(model, texts), in_onnx, thresholds).difference
    if not difference <= TOLERANCE:
        raise CheckError(f"{folder.name}: ONNX Runtime's probabilities differ from PyTorch's by {difference:.2g}")
    if int8:
        quantize(folder)
        in_onnx = _of_whole_texts(OnnxModel.load(folder), texts)
    return _parity(before, in_onnx, thresholds)


def _of_whole_texts(model: Model, examples: Sequence[Example]) -> Probabilities:
    """The probabilities of a model that reads all windows, as otherwise one may read on and another not."""
    reading = model.reading
    model.read_as(reading.model_copy(update={"enough": None}))
    p = model.answers(examples).probabilities
    model.read_as(reading)
    return p


def _parity(expected: Probabilities, p: Probabilities, thresholds: NDArray[np.float64] | None) -> Parity:
    """How far two forms of a model agree; with `thresholds` (M,), a text may have several labels."""
    if thresholds is None:
        same = (expected.argmax(-1) == p.argmax(-1))[:, None]
    else:
        same = (expected > thresholds) == (p > thresholds)
    return Parity(len(expected), int(same.all(-1).sum()), float(np.abs(expected - p).max()))


def write_onnx(model: TorchModel, path: Path) -> None:
    """The classifier as one ONNX file: int64 ids and masks of (batch, length), both free, to logits (batch, labels).

    Models that differ only in their weights, as the domains' students do, share one graph: it takes seconds to trace.
    """
    from metakd.export.onnx_graph import read_one_token, remove_metadata

    set_plain_attention(model.network)
    use_torch_linear(model.network)
    weights = _weights(model.network)
    if (kind := _architecture(model)) not in _GRAPHS:
        _GRAPHS[kind] = _without(weights, _trace(model).model)
    program = torch.onnx.ONNXProgram(_GRAPHS[kind].clone(), None)
    program.apply_weights({name: weights[name] for name in program.model.graph.initializers if name in weights})
    with _quiet_exporter():
        program.optimize()
        read_one_token(program.model)
        remove_metadata(program.model)
        program.optimize()
    program.save(path)


def _weights(network: PreTrainedModel) -> dict[str, Tensor]:
    """Parameters and buffers by all their names."""
    parameters = network.named_parameters(remove_duplicate=False)
    return {**dict(parameters), **dict(network.named_buffers(remove_duplicate=False))}


def _without(weights: Collection[str], model: Any) -> Any:
    """The traced graph without the values of its weights, and without what tracing noted beside its nodes."""
    for value in model.graph.initializers.values():
        value.const_value = None if value.name in weights else value.const_value
    for node in model.graph:
        node.meta.clear()
    return model


def _architecture(model: TorchModel) -> str:
    """All that its graph depends on: layers, configuration, shapes of weights, inputs."""
    config = {name: value for name, value in model.network.config.to_dict().items() if name not in WITHOUT_EFFECT}
    shapes = {name: (tuple(weight.shape), weight.dtype) for name, weight in _weights(model.network).items()}
    return repr((type(model.network), model.network, config, shapes, model.tokenizer.model_input_names))


def _trace(model: TorchModel) -> torch.onnx.ONNXProgram:
    """The graph as PyTorch's exporter has it, not optimised yet; InputError for a model that it cannot read."""
    accepted = inspect.signature(model.network.forward).parameters
    encoded = model.tokenizer(["one text", "and one more"], padding=True, return_tensors="pt")
    inputs = {name: encoded[name] for name in model.tokenizer.model_input_names if name in accepted}
    try:
        with _quiet_exporter():
            program = torch.onnx.export(
                model.network,
                kwargs=inputs,
                input_names=list(inputs),
                output_names=["logits"],
                dynamic_shapes={name: {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")} for name in inputs},
                dynamo=True,
                optimize=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:  # the exporter wraps the first error several times
            cause = cause.__cause__
        kind = model.network.config.model_type
        raise InputError(f"a model of type {kind!r} cannot be exported to ONNX ({error_summary(cause)})") from None
    assert program is not None
    return program


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hide the exporter's warnings, which are about other models."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        log.setLevel(level)


def quantize(folder: Path) -> None:
    """Replace the ONNX file of an export in float32 by one of weights of matrix products and embeddings in int8.

    The scales of other numbers are computed for each input (dynamic quantization).
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    whole, quantized = folder / WHOLE, folder / QUANTIZED
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / whole.name
        quant_pre_process(str(whole), str(prepared), skip_symbolic_shape=True)
        quantize_dynamic(str(prepared), str(quantized), WITH_WEIGHTS, weight_type=QuantType.QInt8, per_channel=True)
    whole.unlink()
