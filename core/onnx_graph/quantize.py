"""INT8 for the layers of a graph, with the ranges that an analysis has stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx

from core.layers import LayerTable
from core.numerics.calibrate.calibration import Calibration
from core.numerics.scheme import ORT_CPU, Scheme, check_built
from core.onnx_graph.layered_graph import LAYER_KEY, LayeredGraph, layer_of_node
from core.onnx_graph.marking import LayerMarks
from core.onnx_graph.surgery import MARK, quantized, readers
from core.onnx_graph.weights_only import store_weights


@dataclass(frozen=True, eq=False)
class Integers:
    """A model with Q and DQ. `reasons` says for layers, or parts of them, why they stay in float;
    `merged` maps an activation to the layer in whose kernel it now runs.
    """

    model: onnx.ModelProto
    reasons: Mapping[str, str]
    merged: Mapping[str, str]


def quantize(
    graph: LayeredGraph, layers: LayerTable, chosen: Iterable[str], ranges: Iterable[Calibration],
    scheme: Scheme = ORT_CPU, tables: Iterable[str] = (),
) -> Integers:  # fmt: skip
    """A copy of `graph` in which the layers `chosen` are quantized as `scheme` says, and of `tables`
    the tables alone.

    Mutates nothing. Raises `PolicyError` for a scheme that cannot be built.
    """
    check_built(scheme)
    marks = LayerMarks(graph, ranges, scheme)
    for name in chosen:
        marks.take(layers.layers[layers.index[name]])
    for name in tables:
        marks.table(layers.layers[layers.index[name]])
    model = quantized(marks)
    store_weights(model, marks.stored)
    _name_layers(model)
    return Integers(model, marks.reasons, marks.merged)


def _name_layers(model: onnx.ModelProto) -> None:
    """Write into every Q and DQ the layer that caused it: of a tensor that all its readers see
    rounded the one that makes it, else the one that reads the copy.
    """
    made = {tensor: node for node in model.graph.node for tensor in node.output}
    read_by = readers(model)
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear":
            continue
        rounding = made.get(node.input[0])
        if rounding is None or MARK in node.name:
            layer = layer_of_node(read_by[node.output[0]][0])
        else:
            layer = layer_of_node(made[rounding.input[0]])
        for one in (node, rounding):
            if one is not None and layer is not None:
                one.metadata_props.add(key=LAYER_KEY, value=layer)
