"""An exported classifier's graph, without work that its answer does not hang on, and without notes of its origin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

ONE_BY_ONE = {"Add", "Cast", "Div", "Erf", "Gelu", "Identity", "Mul", "Pow", "Relu", "Sigmoid", "Sqrt", "Sub", "Tanh"}
ALONG_LAST = {"LayerNormalization", "Softmax"}  # they mix what stands along the last axis, and nothing else

Need = tuple["ir.Node", int]  # a node and the place of one of its inputs


def strip_notes(model: ir.Model) -> None:
    """Forget which line of which file each node came from, in place: paths of the machine that exported it."""
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None


def read_one_token(model: ir.Model) -> None:
    """Where a classifier looks at one token of the last layer, compute that one alone there, in place.

    The choice of the token moves up through all that treats tokens one by one: the last layer's feed-forward part, its
    norms, its queries. Keys and values still come from every token, so the answers stay the same.
    """
    needs: dict[Need, int] = {}  # inputs of which one place is enough, and the axis of that place
    narrowed: dict[ir.Node, int] = {}  # nodes that give one place alone, and its axis in what they give
    for node in reversed(list(model.graph)):
        if (chosen := _chosen_axis(node)) is not None:
            needs[node, 0] = chosen
            continue
        axes = {needs.get((use.node, use.idx)) for use in node.outputs[0].uses()}
        axis = axes.pop() if len(axes) == 1 else None
        if axis is None or node.outputs[0].is_graph_output():
            continue
        if own := _axes_of_inputs(node, axis):
            narrowed[node] = axis
            needs |= {(node, place): at for place, at in own.items()}
    for node, axis in narrowed.items():
        if node.op_type == "Reshape":
            _keep_leading(model.graph, node, axis)
    for (node, place), axis in needs.items():
        source = node.inputs[place]
        if source is not None and source.producer() not in narrowed:
            _narrow(model.graph, node, place, axis)
    for node, axis in narrowed.items():
        node.outputs[0].shape = _with_one(node.outputs[0].shape, axis)


def _chosen_axis(node: ir.Node) -> int | None:
    """The axis along which `node` takes the first of many, if that is what it does."""
    index = node.inputs[1].const_value if node.op_type == "Gather" and node.inputs[1] is not None else None
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    return axis if index is not None and index.shape.rank() == 0 and int(index.numpy()) == 0 and axis > 0 else None


def _axes_of_inputs(node: ir.Node, axis: int) -> dict[int, int]:
    """For one place along `axis` of the output: along which axis one place of each input is enough; {} if of none."""
    shapes = [value.shape if value is not None else None for value in (*node.inputs, node.outputs[0])]
    if shapes[0] is None or shapes[-1] is None:
        return {}
    own, given = shapes[0], shapes[-1]
    rank = given.rank()
    if node.op_type in ONE_BY_ONE:
        places = ((i, shape, axis - rank + shape.rank()) for i, shape in enumerate(shapes[:-1]) if shape is not None)
        return {i: at for i, shape, at in places if at >= 0 and shape[at] != 1}
    if node.op_type in ALONG_LAST:
        along = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
        return {0: axis} if along in (-1, rank - 1) and axis < rank - 1 else {}
    if node.op_type == "MatMul" and axis == rank - 2:
        return {0: own.rank() - 2}
    if node.op_type == "Transpose":
        return {0: node.attributes["perm"].as_ints()[axis]}
    if node.op_type == "Reshape":
        same = [str(one) for one in own[: axis + 1]] == [str(one) for one in given[: axis + 1]]
        return {0: axis} if same and all(isinstance(one, int) for one in given[axis + 1 :]) else {}
    return {}


def _with_one(shape: ir.Shape | None, axis: int) -> ir.Shape:
    import onnx_ir as ir

    assert shape is not None
    return ir.Shape([1 if place == axis else one for place, one in enumerate(shape)])


def _constant(graph: ir.Graph, name: str, numbers: list[int]) -> ir.Value:
    import onnx_ir as ir

    value = graph.initializers.get(name)
    if value is None:
        value = ir.Value(name=name, const_value=ir.tensor(np.array(numbers, np.int64), name=name))
        graph.initializers[name] = value
    return value


def _narrow(graph: ir.Graph, node: ir.Node, place: int, axis: int) -> None:
    """Give `node` the first along `axis` of that input; several nodes share it."""
    import onnx_ir as ir

    source = node.inputs[place]
    assert source is not None
    name = f"{source.name}_first_{axis}"
    for use in source.uses():
        if use.node.op_type == "Slice" and use.node.outputs[0].name == name:
            return node.replace_input_with(place, use.node.outputs[0])
    bounds = [_constant(graph, f"first_{label}", [number]) for label, number in (("start", 0), ("end", 1))]
    first = ir.node("Slice", [source, *bounds, _constant(graph, f"first_axis_{axis}", [axis])])
    first.outputs[0].name, first.outputs[0].type = name, source.type
    first.outputs[0].shape = _with_one(source.shape, axis)
    producer = source.producer()
    graph.insert_before(graph[0], first) if producer is None else graph.insert_after(producer, first)
    return node.replace_input_with(place, first.outputs[0])


def _keep_leading(graph: ir.Graph, node: ir.Node, axis: int) -> None:
    """Let a reshape keep its input's leading lengths, whatever they have become."""
    import onnx_ir as ir

    shape = node.outputs[0].shape
    assert shape is not None
    wanted = [0] * (axis + 1) + [one for one in shape[axis + 1 :] if isinstance(one, int)]
    node.replace_input_with(1, _constant(graph, f"shape_{'_'.join(map(str, wanted))}", wanted))
    node.attributes["allowzero"] = ir.AttrInt64("allowzero", 0)
