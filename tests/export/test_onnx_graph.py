"""The exported graph does no work that its output does not need, and has no traces of the machine that exported it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from transformers import AutoTokenizer

from conftest import Checkpoint
from metakd.export.onnx_format import write_onnx
from metakd.export.onnx_graph import read_one_token
from metakd.inference.torch_backend import TorchModel
from metakd.models.loading import load_encoder


def by_hand(*, also_whole: bool) -> ir.Model:
    """(B, L, 2) · w + b, of which the first token is taken; the sum over all tokens is an output too, or not."""
    free = ["batch", "length", 2]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["sum"]),
        helper.make_node("Gather", ["sum", "zero"], ["first"], axis=1),
    ]
    outputs = [helper.make_tensor_value_info("first", TensorProto.FLOAT, ["batch", 2])]
    if also_whole:
        nodes.append(helper.make_node("ReduceSum", ["sum"], ["total"], keepdims=0))
        outputs.append(helper.make_tensor_value_info("total", TensorProto.FLOAT, []))
    constants = [
        helper.make_tensor("w", TensorProto.FLOAT, [2, 2], [1, 2, 3, 4]),
        helper.make_tensor("b", TensorProto.FLOAT, [2], [10, 20]),
        helper.make_tensor("zero", TensorProto.INT64, [], [0]),
    ]
    x, *between = (helper.make_tensor_value_info(name, TensorProto.FLOAT, free) for name in ("x", "product", "sum"))
    graph = helper.make_graph(nodes, "by_hand", [x], outputs, constants, value_info=between)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def run(model: ir.Model, x: list[Any]) -> list[Any]:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    return list(session.run(None, {"x": np.array(x, np.float32)}))


def test_the_selection_of_a_token_moves_before_the_product() -> None:
    """First tokens (1, 1) and (0, 1): 1 + 3 + 10, 2 + 4 + 20; 3 + 10, 4 + 20."""
    model = by_hand(also_whole=False)
    read_one_token(model)
    assert [node.op_type for node in model.graph] == ["Slice", "MatMul", "Add", "Gather"]
    (first,) = run(model, [[[1, 1], [7, 7], [8, 8]], [[0, 1], [9, 9], [5, 5]]])
    assert first.tolist() == [[14, 26], [13, 24]]


def test_what_others_need_whole_stays_whole() -> None:
    """The sum over two tokens (1, 1), (0, 1): 14 + 26 + 13 + 24."""
    model = by_hand(also_whole=True)
    read_one_token(model)
    assert [node.op_type for node in model.graph if node.op_type != "Slice"] == ["MatMul", "Add", "Gather", "ReduceSum"]
    first, total = run(model, [[[1, 1], [0, 1]]])
    assert (first.tolist(), total) == ([[14, 26]], 77)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "layers"),
    [("bert", 1), *((kind, 3) for kind in ("bert", "distilbert", "roberta", "electra", "albert", "mpnet"))],
)
def test_the_last_layer_attends_from_one_token(checkpoint: Checkpoint, tmp_path: Path, kind: str, layers: int) -> None:
    """The output is the same. Attention of every query, (B, A, L, L), in all layers but the last: (B, A, 1, L)."""
    folder = checkpoint(kind, **{"n_layers" if kind == "distilbert" else "num_hidden_layers": layers})
    model = TorchModel(load_encoder(folder, ["a", "b", "c"]), AutoTokenizer.from_pretrained(folder))
    inputs = model.tokenizer(["a lovely page", "the pan was very very dull"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = model.network(**inputs).logits.numpy()
    write_onnx(model, tmp_path / "model.onnx")
    written = (tmp_path / "model.onnx").read_bytes()
    assert not [trace for trace in (b"site-packages", b".py", str(tmp_path).encode()) if trace in written]
    graph = onnx.load_from_string(written)
    attention = [node.output[0] for node in graph.graph.node if node.op_type == "Softmax"]
    graph.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in attention)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    logits, *factors = session.run(None, {entry.name: inputs[entry.name].numpy() for entry in session.get_inputs()})
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert [f.shape[2] for f in factors] == [inputs["input_ids"].shape[1]] * (layers - 1) + [1]
