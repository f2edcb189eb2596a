"""INT8 by ONNX Runtime's quantizer, with the ranges that an analysis has stored.

The quantizer works by tensor: every reader of a quantized tensor gets the rounded copy, chosen
or not. Here the operand of a chosen node is first given a name of its own, so that only the
nodes that are to read integers do; outputs of layers, which all their readers see rounded, are
quantized in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorsData
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.quant_utils import add_infer_metadata

from core.errors import PolicyError
from core.layers import LayerTable
from core.numerics.calibrate.calibration import Calibration
from core.numerics.scheme import ORT_CPU, Scheme
from core.onnx_graph.layered_graph import LAYER_KEY, LayeredGraph
from core.onnx_graph.marking import BY_SIGN, CLIPS, KINDS, Marks, Span
from core.onnx_graph.surgery import (
    drop_aliases,
    own_constants,
    part_activations,
    round_added_biases,
)

ALIAS = "__quantscape"
_SUFFIXES = ("_QuantizeLinear", "_DequantizeLinear")


@dataclass(frozen=True, eq=False)
class Integers:
    """A model with Q and DQ. `reasons` says for layers, or parts of them, why they stay in float;
    `merged` maps an activation to the layer in whose kernel it now runs.
    """

    model: onnx.ModelProto
    reasons: Mapping[str, str]
    merged: Mapping[str, str]


def check_scheme(scheme: Scheme) -> None:
    """Raise `PolicyError` for a scheme that rounds what this builder does not."""
    if scheme.input_functions or scheme.output_functions or scheme.activations == BY_SIGN:
        raise PolicyError(
            f"Scheme {scheme.name} rounds more than products and layers' outputs; such models are "
            "not built.",
            "Analyze the model with --scheme ort-cpu (or tensorrt) to build and verify it.",
        )


def quantize(
    graph: LayeredGraph, layers: LayerTable, chosen: Iterable[str], ranges: Iterable[Calibration],
    scheme: Scheme = ORT_CPU,
) -> Integers:  # fmt: skip
    """A copy of `graph` in which the layers `chosen` are quantized as `scheme` says.

    Mutates nothing. Raises `PolicyError` for a scheme that cannot be built.
    """
    check_scheme(scheme)
    marks = Marks(graph, ranges, scheme)
    for name in chosen:
        marks.take(layers.layers[layers.index[name]])
    return _done(marks)


def _done(marks: Marks) -> Integers:
    """The quantized model."""
    if not marks.nodes and not marks.rounded:
        return Integers(marks.model, marks.reasons, marks.merged)
    symmetric = marks.scheme.activations == "symmetric"
    kept = [op for op, kind in KINDS.items() if not marks.rounds(kind)]
    floats = [marks.node[n] for n in marks.nodes if marks.node[n].op_type in kept]
    part_activations(marks.model, floats, marks.rounded, ALIAS)
    spans = dict(marks.rounded)
    _own_operands(marks, spans)
    for copy, given in own_constants(marks.model, marks.nodes, ALIAS).items():
        marks.cause[copy] = marks.cause.get(given, "")
    add_infer_metadata(marks.model)
    quantizer = QDQQuantizer(
        marks.model, marks.scheme.weights_per_channel, False, QuantType.QInt8,
        QuantType.QInt8 if symmetric else QuantType.QUInt8,
        TensorsData(CalibrationMethod.MinMax,
                    {t: (np.float32(a), np.float32(b)) for t, (a, b) in spans.items()}),
        marks.nodes or [""], [],
        sorted({marks.node[name].op_type for name in marks.nodes}),
        {
            "OpTypesToExcludeOutputQuantization": kept,
            "ActivationSymmetric": symmetric,
            "QuantizeBias": marks.scheme.bias == "int32",
        },
    )  # fmt: skip
    for tensor in marks.rounded:
        reader = marks.readers.get(tensor, [])
        if not (reader and reader[0].name in marks.nodes and reader[0].op_type in CLIPS):
            quantizer.quantize_activation_tensor(tensor)
    model = quantizer.quantize_model()
    drop_aliases(model, ALIAS)
    if marks.scheme.bias == "int32":
        round_added_biases(model, marks.nodes, ALIAS)
    _name_layers(marks, model)
    ONNXModel(model).topological_sort()
    return Integers(model, marks.reasons, marks.merged)


def _own_operands(marks: Marks, spans: dict[str, Span]) -> None:
    """Give the operands of chosen nodes names of their own, shared where grids are equal."""
    aliases: dict[tuple[str, Span], str] = {}
    types = {v.name: v for v in (*marks.model.graph.value_info, *marks.model.graph.input)}
    for node, slot, span, layer in marks.operands:
        tensor = node.input[slot]
        if marks.rounded.get(tensor) == span:
            continue  # it is rounded on that grid for all its readers
        alias = aliases.get((tensor, span))
        if alias is None:
            alias = aliases[tensor, span] = f"{tensor}{ALIAS}_{len(aliases)}"
            copy = onnx.helper.make_node("Identity", [tensor], [alias], f"{alias}_copy")
            marks.model.graph.node.append(copy)
            known = marks.model.graph.value_info.add()
            known.CopyFrom(types[tensor])
            known.name = alias
            spans[alias] = span
            marks.cause[alias] = layer
        node.input[slot] = alias


def _name_layers(marks: Marks, model: onnx.ModelProto) -> None:
    """Write into every Q and DQ the layer that caused it."""
    for node in model.graph.node:
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
            continue
        tensor = node.name
        for suffix in (*_SUFFIXES, "_quantized"):
            tensor = tensor.removesuffix(suffix)
        layer = marks.cause.get(tensor, "")
        if layer:
            node.metadata_props.add(key=LAYER_KEY, value=layer)
