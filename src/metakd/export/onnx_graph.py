"""Rewrites an exported classifier's graph: no work for tokens whose output is not used, no metadata of its origin."""

import numpy as np
import onnx_ir as ir

ELEMENTWISE = {"Add", "Cast", "Div", "Erf", "Gelu", "Identity", "Mul", "Pow", "Relu", "Sigmoid", "Sqrt", "Sub", "Tanh"}
ALONG_LAST = {"LayerNormalization", "Softmax"}  # they mix values along the last axis, and nothing else


def remove_metadata(model: ir.Model) -> None:
    """Remove in place the source file and line of each node, which are paths of the exporting machine."""
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None


def read_one_token(model: ir.Model) -> None:
    """If a classifier uses one token of the last layer, compute that layer for this token only, in place.

    The selection of the token moves up through all that treats tokens one by one: the last layer's feed-forward part,
    its norms, its queries. Keys and values still come from every token, so the output stays the same.
    """
    needs: dict[tuple[ir.Node, int], int] = {}  # node and index of an input of which one position is enough -> its axis
    narrowed: dict[ir.Node, int] = {}  # nodes whose output has only one position, and its axis there
    for node in reversed(list(model.graph)):
        if (selected := _selected_axis(node)) is not None:
            needs[node, 0] = selected
            continue
        axes = {needs.get((use.node, use.idx)) for use in node.outputs[0].uses()}
        axis = axes.pop() if len(axes) == 1 else None
        if axis is None or node.outputs[0].is_graph_output():
            continue
        if input_axes := _input_axes(node, axis):
            narrowed[node] = axis
            needs |= {(node, index): input_axis for index, input_axis in input_axes.items()}
    for node, axis in narrowed.items():
        if node.op_type == "Reshape":
            _keep_leading(model.graph, node, axis)
    for (node, index), axis in needs.items():
        source = node.inputs[index]
        if source is not None and source.producer() not in narrowed:
            _narrow(model.graph, node, index, axis)
    for node, axis in narrowed.items():
        node.outputs[0].shape = _with_one(node.outputs[0].shape, axis)


def _selected_axis(node: ir.Node) -> int | None:
    """The axis along which `node` takes the first of many, if that is what it does."""
    index = node.inputs[1].const_value if node.op_type == "Gather" and node.inputs[1] is not None else None
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    return axis if index is not None and index.shape.rank() == 0 and int(index.numpy()) == 0 and axis > 0 else None


def _input_axes(node: ir.Node, axis: int) -> dict[int, int]:
    """For one position along `axis` of the output: input -> axis along which one position is enough; {} if none is."""
    shapes = [value.shape if value is not None else None for value in (*node.inputs, node.outputs[0])]
    source, result = shapes[0], shapes[-1]
    if source is None or result is None:
        return {}
    rank = result.rank()
    if node.op_type in ELEMENTWISE:
        aligned = ((i, shape, axis - rank + shape.rank()) for i, shape in enumerate(shapes[:-1]) if shape is not None)
        return {i: at for i, shape, at in aligned if at >= 0 and shape[at] != 1}
    if node.op_type in ALONG_LAST:
        along = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
        return {0: axis} if along in (-1, rank - 1) and axis < rank - 1 else {}
    if node.op_type == "MatMul" and axis == rank - 2:
        return {0: source.rank() - 2}
    if node.op_type == "Transpose":
        return {0: node.attributes["perm"].as_ints()[axis]}
    if node.op_type == "Reshape":
        same = [str(size) for size in source[: axis + 1]] == [str(size) for size in result[: axis + 1]]
        return {0: axis} if same and all(isinstance(size, int) for size in result[axis + 1 :]) else {}
    return {}


def _with_one(shape: ir.Shape | None, axis: int) -> ir.Shape:
    assert shape is not None
    return ir.Shape([1 if i == axis else size for i, size in enumerate(shape)])


def _constant(graph: ir.Graph, name: str, numbers: list[int]) -> ir.Value:
    if name not in graph.initializers:
        graph.initializers[name] = ir.Value(name=name, const_value=ir.tensor(np.array(numbers, np.int64), name=name))
    return graph.initializers[name]


def _narrow(graph: ir.Graph, node: ir.Node, index: int, axis: int) -> None:
    """Replace that input of `node` by its first position along `axis`; nodes with the same input share the slice."""
    source = node.inputs[index]
    assert source is not None
    name = f"{source.name}_first_{axis}"
    for use in source.uses():
        if use.node.op_type == "Slice" and use.node.outputs[0].name == name:
            return node.replace_input_with(index, use.node.outputs[0])
    bounds = [_constant(graph, f"first_{label}", [number]) for label, number in (("start", 0), ("end", 1))]
    first = ir.node("Slice", [source, *bounds, _constant(graph, f"first_axis_{axis}", [axis])])
    first.outputs[0].name, first.outputs[0].type = name, source.type
    first.outputs[0].shape = _with_one(source.shape, axis)
    producer = source.producer()
    graph.insert_before(graph[0], first) if producer is None else graph.insert_after(producer, first)
    return node.replace_input_with(index, first.outputs[0])


def _keep_leading(graph: ir.Graph, node: ir.Node, axis: int) -> None:
    """Let a reshape keep its input's leading sizes, whatever they are now."""
    shape = node.outputs[0].shape
    assert shape is not None
    sizes = [0] * (axis + 1) + [size for size in shape[axis + 1 :] if isinstance(size, int)]
    node.replace_input_with(1, _constant(graph, f"shape_{'_'.join(map(str, sizes))}", sizes))
    node.attributes["allowzero"] = ir.AttrInt64("allowzero", 0)
