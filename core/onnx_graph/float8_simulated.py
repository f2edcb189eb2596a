"""Floats of few bits over scales in a graph of float32: no CPU kernel of ONNX Runtime multiplies them.

Weights of a layer's products are rounded where they are kept, and what these take in where it enters,
to the values that `core.numerics.rounding.round_scaled` gives. The rounding is written with operators
of every opset, since a cast to such a type is of a later one than most files are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto

from core.layers import LayerTable
from core.numerics.precision import Precision, TensorFormat
from core.numerics.ranges import Ranges
from core.numerics.rounding import activation_scale, round_weight, top
from core.numerics.scheme import Scheme
from core.onnx_graph.layered_graph import LayeredGraph, float_kernels
from core.onnx_graph.marking import LayerMarks
from core.onnx_graph.surgery import drop_unread, replace_nodes

SCALED = "__scaled_"
"""Added to the name of a tensor, with the precision that it was rounded to."""


def round_products(
    model: ModelProto, graph: LayeredGraph, layers: LayerTable, chosen: Mapping[str, Precision],
    ranges: Ranges, scheme: Scheme,
) -> None:  # fmt: skip
    """Round what the products of the layers `chosen` take in. `model` was made of `graph` and is
    mutated.
    """
    marks, floats = LayerMarks(graph, (), scheme), float_kernels(scheme)
    axes = {spec.name: spec.scale_axis for layer in layers for spec in layer.tensors}
    held = {c.name: c for c in model.graph.initializer}
    node = {n.name: n for n in model.graph.node}
    before: dict[str, list[NodeProto]] = {}
    for name, precision in chosen.items():
        kept = precision.activations
        if kept is None or not layers.layers[layers.index[name]].takes_scales:
            continue
        for number, product in enumerate(graph.products(name)):
            mine = node.get(product.name)
            if mine is None:
                continue
            slots = () if mine.op_type in floats else marks.slots(product)
            for slot, given in enumerate(mine.input[:2]):
                if given in held and given in axes:
                    mine.input[slot] = _weight(model, held[given], precision, axes[given])
                elif slot in slots and given not in held:
                    scale = activation_scale(ranges.of((name, number, slot)), kept)
                    made = f"{given}{SCALED}{precision.name}_{mine.name}_{slot}"
                    before.setdefault(mine.name, []).extend(_rounding(given, made, scale, kept))
                    mine.input[slot] = made
    nodes = [one for n in model.graph.node for one in (*before.get(n.name, ()), n)]
    replace_nodes(model, nodes)
    drop_unread(model)


def _weight(
    model: ModelProto, constant: onnx.TensorProto, precision: Precision, axis: int | None
) -> str:
    name = f"{constant.name}{SCALED}{precision.name}"
    if all(c.name != name for c in model.graph.initializer):
        values = torch.from_numpy(onnx.numpy_helper.to_array(constant).copy())
        rounded = round_weight(values, precision, axis).numpy()
        model.graph.initializer.append(onnx.numpy_helper.from_array(rounded, name))
    return name


def _rounding(name: str, made: str, scale: float, kept: TensorFormat) -> list[NodeProto]:
    """Nodes that make `made` of `name`: over `scale`, to the nearest multiple, halves to even, of what
    the format can tell apart there, and back.
    """
    info = torch.finfo(getattr(torch, kept.dtype))
    nodes: list[NodeProto] = []

    def put(op: str, *inputs: str | float, last: str = "") -> str:
        given = []
        for value in inputs:
            if isinstance(value, float):
                constant = onnx.numpy_helper.from_array(np.array(value, np.float32))
                nodes.append(onnx.helper.make_node(
                    "Constant", [], [f"{made}_{len(nodes)}"], f"{made}_{len(nodes)}", value=constant
                ))  # fmt: skip
                given.append(nodes[-1].output[0])
            else:
                given.append(value)
        out = last or f"{made}_{len(nodes)}"
        nodes.append(onnx.helper.make_node(op, given, [out], out))
        return out

    limit = top(kept)
    over = put("Clip", put("Div", name, scale), -limit, limit)
    exponent = put("Floor", put("Mul", put("Log", put("Abs", over)), 1 / math.log(2)))
    exponent = put("Max", exponent, math.log2(info.smallest_normal))
    step = put("Pow", 2.0, put("Add", exponent, math.log2(info.eps)))
    whole = put("Round", put("Div", over, step))
    put("Mul", put("Mul", whole, step), scale, last=made)
    return nodes
