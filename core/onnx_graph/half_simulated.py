"""Half precision in a graph of float32, where a runtime has no kernels for it.

Weights and every result of a layer's nodes are rounded to the format and back, while sums stay in
float32, as tensor cores do: what `core.engines.torch.simulate` does to a module.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto

from core.numerics.kernel_table import BODIES
from core.numerics.precision import Precision
from core.numerics.rounding import round_float
from core.onnx_graph.layered_graph import layer_of_node
from core.onnx_graph.surgery import ROUNDERS, own_constants, readers, replace_nodes

TYPES = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
ROUNDED = "__rounded_"
"""Added to the name of a tensor, with the format that it was rounded to."""


def round_halves(
    model: ModelProto, chosen: Mapping[str, Precision], floats: Collection[str]
) -> None:
    """Round what the layers `chosen` hold and make. `floats` are tensors that are float32; what a
    branch or loop holds stays as it is. Mutates `model`.
    """
    for dtype in sorted({precision.float_dtype for precision in chosen.values()}):
        layers = {name for name, p in chosen.items() if p.float_dtype == dtype}
        precision = next(p for p in chosen.values() if p.float_dtype == dtype)
        _round(model, layers, precision, floats)


def _round(
    model: ModelProto, layers: Collection[str], precision: Precision, floats: Collection[str]
) -> None:
    own = {
        node.name: node
        for node in model.graph.node
        if layer_of_node(node) in layers and node.op_type not in (*ROUNDERS, *BODIES)
    }
    own_constants(model, own.keys(), f"{ROUNDED}{precision.float_dtype}")
    read = {name for node in own.values() for name in node.input}
    for constant in model.graph.initializer:
        if constant.name in read and constant.data_type == TensorProto.FLOAT:
            values = torch.from_numpy(onnx.numpy_helper.to_array(constant).copy())
            rounded = round_float(values, precision).numpy()
            constant.CopyFrom(onnx.numpy_helper.from_array(rounded, constant.name))
    constants = {c.name for c in model.graph.initializer}
    made = {name: node for node in model.graph.node for name in node.output}
    behind = readers(model)
    outputs = {v.name for v in model.graph.output}
    nodes: list[NodeProto] = []
    entering: dict[str, str] = {}
    for node in model.graph.node:
        if node.name not in own:
            nodes.append(node)
            continue
        for slot, name in enumerate(node.input):
            source = made.get(name)
            if name in constants or name not in floats or (source and source.name in own):
                continue
            if name not in entering:
                entering[name] = f"{name}{ROUNDED}{precision.float_dtype}"
                nodes += _pair(name, entering[name], precision)
            node.input[slot] = entering[name]
        nodes.append(node)
        for slot, name in enumerate(node.output):
            if name in floats and not _adds_bias(name, node, behind, outputs):
                node.output[slot] = f"{name}{ROUNDED}exact"
                nodes += _pair(node.output[slot], name, precision)
    replace_nodes(model, nodes)


def _adds_bias(
    name: str, node: NodeProto, behind: Mapping[str, list[NodeProto]], outputs: Collection[str]
) -> bool:
    """Whether a product's result is an inner sum: its kernel adds the bias before it rounds."""
    after = behind.get(name, [])
    return (
        node.op_type == "MatMul" and len(after) == 1 and name not in outputs
        and after[0].op_type == "Add" and layer_of_node(after[0]) == layer_of_node(node)
    )  # fmt: skip


def _pair(name: str, rounded: str, precision: Precision) -> list[NodeProto]:
    """Nodes that make `rounded` of `name` by casting it to the format and back."""
    narrow = f"{rounded}{ROUNDED}cast"
    down = onnx.helper.make_node("Cast", [name], [narrow], narrow, to=TYPES[precision.float_dtype])
    up = onnx.helper.make_node("Cast", [narrow], [rounded], f"{rounded}_up", to=TensorProto.FLOAT)
    return [down, up]
