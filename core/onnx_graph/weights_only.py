"""Weights kept in 8 bits where the activations of their node are floats: dequantized in front of a
kernel that multiplies floats, or read by DynamicQuantizeLSTM as they are.

Grids are those of `core.numerics.rounding.round_weight`: symmetric in [-127, 127], one scale an
output channel. A zero point of 0 is written with every scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto
from onnx.reference import ReferenceEvaluator
from onnxruntime.quantization.onnx_model import ONNXModel

from core.onnx_graph.node_table import PRODUCTS, RECURRENT, SHAPES
from core.onnx_graph.surgery import MARK, drop_unread, on_grid, read_in, replace_nodes

MICROSOFT = "com.microsoft"
OF_RECURRENT = (1, 2)
"""Inputs of LSTM, GRU and RNN that are weights [directions, gates * hidden, features]."""


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """Input `slot` of the node called `node` has one scale per index of each of `axes`."""

    node: str
    slot: int
    axes: tuple[int, ...]
    dynamic: bool = False


def store_weights(model: ModelProto, chosen: Sequence[StoredWeight]) -> None:
    """Keep the constants that `chosen` names as integers. Mutates `model`; another reader of such a
    constant goes on reading floats.
    """
    if not chosen:
        return
    held = {c.name: onnx.numpy_helper.to_array(c) for c in model.graph.initializer}
    by_name = {node.name: node for node in model.graph.node}
    made: dict[tuple[str, tuple[int, ...]], str] = {}
    for one in chosen:
        if one.dynamic:
            continue
        node = by_name[one.node]
        key = node.input[one.slot], one.axes
        if key not in made:
            made[key] = _dequantized(model, key[0], held[key[0]], one.axes, node)
        node.input[one.slot] = made[key]
    for name in dict.fromkeys(one.node for one in chosen if one.dynamic):
        _dynamic(model, by_name[name], held)
    drop_unread(model)
    ONNXModel(model).topological_sort()


def _add(model: ModelProto, name: str, values: NDArray[Any]) -> str:
    model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return name


def _dequantized(
    model: ModelProto, name: str, values: NDArray[np.float32], axes: tuple[int, ...],
    reader: NodeProto,
) -> str:  # fmt: skip
    """Put the constant `name` before a DequantizeLinear, and give the name of what that gives."""
    integers, scales = on_grid(values, axes)
    stem = f"{name}{MARK}_{'_'.join(map(str, axes)) or 'all'}"
    several = len(axes) > 1 and any(values.shape[axis] > 1 for axis in axes[:-1])
    axis = 0 if several else (axes[-1] if axes else 0)
    if several:  # a kernel takes the scales of one axis: the leading ones are laid into one
        integers = integers.reshape(-1, *values.shape[len(axes) :])
    scale = scales.reshape(-1) if axes else scales.reshape(())
    given = [
        _add(model, f"{stem}_quantized", integers),
        _add(model, f"{stem}_scale", scale),
        _add(model, f"{stem}_zero_point", np.zeros(scale.shape, np.int8)),
    ]
    out = f"{stem}_dequantized"
    node = onnx.helper.make_node("DequantizeLinear", given, [out], out, axis=axis)
    nodes = [node]
    if several:
        shape = _add(model, f"{stem}_shape", np.array(values.shape, np.int64))
        nodes.append(onnx.helper.make_node("Reshape", [out, shape], [f"{out}_3d"], f"{out}_3d"))
    for one in nodes:
        one.metadata_props.extend(reader.metadata_props)
    model.graph.node.extend(nodes)
    return str(nodes[-1].output[0])


def _dynamic(model: ModelProto, node: NodeProto, held: dict[str, NDArray[Any]]) -> None:
    """Make an LSTM a DynamicQuantizeLSTM (onnxruntime, docs/ContribOperators.md): weights
    [directions, features, gates * hidden], scales and zero points [directions, gates * hidden].
    """
    grids: list[str] = []
    for slot in OF_RECURRENT:
        name = node.input[slot]
        integers, scales = on_grid(held[name], (0, 1))
        stem = f"{name}{MARK}"
        scale = scales.reshape(held[name].shape[:2])
        node.input[slot] = _add(
            model, f"{stem}_quantized", np.ascontiguousarray(integers.transpose(0, 2, 1))
        )
        grids.append(_add(model, f"{stem}_scale", scale))
        grids.append(_add(model, f"{stem}_zero_point", np.zeros(scale.shape, np.int8)))
    node.input.extend([""] * (8 - len(node.input)) + grids)
    node.op_type, node.domain = "DynamicQuantizeLSTM", MICROSOFT
    kept = [attribute for attribute in node.attribute if attribute.name != "layout"]
    del node.attribute[:]
    node.attribute.extend(kept)
    if MICROSOFT not in {one.domain for one in model.opset_import}:
        model.opset_import.append(onnx.helper.make_opsetid(MICROSOFT, 1))


def whole_weights(model: ModelProto) -> None:
    """Compute what recurrent nodes read from constants alone, and lay out what products and sums
    read of constants that are only moved: PyTorch's exporter puts large weights together out of
    slices, and takes biases apart, when the model runs. Mutates `model`.
    """
    made = {tensor: node for node in model.graph.node for tensor in node.output}
    constants = {c.name: c for c in model.graph.initializer}
    fixed = {"", *constants}
    for node in model.graph.node:
        if fixed.issuperset(node.input):
            fixed.update(node.output)
    whole: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type not in (*RECURRENT, *PRODUCTS, "Add"):
            continue
        recurrent = node.op_type in RECURRENT
        for slot, name in enumerate(node.input):
            if name not in made or name not in fixed or (recurrent and slot not in {1, 2, 3}):
                continue
            if name not in whole:
                needed = _behind(name, made)
                given = {n for one in needed for n in one.input if n} - made.keys()
                moves = all(one.op_type in SHAPES and one.input for one in needed)
                is_weight = any(
                    constants[n].data_type == TensorProto.FLOAT
                    # A sum takes a bias; a table of positions stays as it is.
                    and (node.op_type != "Add" or len(constants[n].dims) < 2)
                    for n in given
                )
                if not (recurrent or (moves and is_weight)):
                    continue
                order = [one for one in model.graph.node if one in needed]
                whole[name] = _add(
                    model,
                    f"{name}_whole",
                    _computed(model, name, order, [constants[n] for n in sorted(given)]),
                )
            node.input[slot] = whole[name]
    if whole:
        _drop_dead(model)


def _behind(name: str, made: dict[str, NodeProto]) -> list[NodeProto]:
    """The nodes that what is called `name` needs."""
    needed: list[NodeProto] = []
    open_names = [name]
    while open_names:
        source = made.get(open_names.pop())
        if source is not None and source not in needed:
            needed.append(source)
            open_names += list(source.input)
    return needed


def _computed(
    model: ModelProto, name: str, nodes: list[NodeProto], constants: list[TensorProto]
) -> NDArray[Any]:
    """What `nodes`, in order, make of `constants` and call `name`."""
    out = onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph(nodes, "weights", [], [out], constants)
    part = onnx.helper.make_model(graph, opset_imports=model.opset_import)
    return cast(NDArray[Any], cast(Any, ReferenceEvaluator(part).run(None, {}))[0])


def _drop_dead(model: ModelProto) -> None:
    """Leave out nodes whose results nothing reads, and the constants of these alone."""
    while True:
        read = read_in(model.graph)
        kept = [n for n in model.graph.node if read & set(n.output)]
        if len(kept) == len(model.graph.node):
            break
        replace_nodes(model, kept)
    drop_unread(model)
