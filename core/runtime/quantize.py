"""INT8 by ONNX Runtime's quantizer, with the ranges that an analysis has stored.

The quantizer works by tensor: every reader of a quantized tensor gets the rounded copy, chosen
or not. Here the operand of a chosen node is first given a name of its own, so that only the
nodes that are to read integers do; outputs of layers, which all their readers see rounded, are
quantized in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import NodeProto
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorsData
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.quant_utils import add_infer_metadata

from core.evidence.evidence import Calibration
from core.evidence.ranges import MODULE_OUTPUT, OUTPUT
from core.layers import Layer, LayerTable
from core.runtime.graph import LAYER_KEY, Graph
from core.runtime.surgery import (
    drop_aliases,
    own_constants,
    part_activations,
    readers,
    round_added_biases,
)

FLOAT_OUTPUT = ["MatMul", "Gemm"]
"""Operators whose output scheme `ort-cpu` leaves in float."""
QUANTIZABLE = frozenset({"Conv", "MatMul", "Gemm"})
CLIPS = frozenset({"Relu", "Clip"})
ALIAS = "__quantscape"
_SUFFIXES = ("_QuantizeLinear", "_DequantizeLinear")

Span = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Integers:
    """A model with Q and DQ. `reasons` says for layers, or parts of them, why they stay in float;
    `merged` maps an activation to the layer in whose kernel it now runs.
    """

    model: onnx.ModelProto
    reasons: Mapping[str, str]
    merged: Mapping[str, str]


def quantize(
    graph: Graph, layers: LayerTable, chosen: Iterable[str], ranges: Iterable[Calibration]
) -> Integers:
    """A copy of `graph` in which the layers `chosen` are quantized. Mutates nothing."""
    work = _Work(graph, ranges)
    for name in chosen:
        work.take(layers.layers[layers.index[name]])
    return work.done()


@dataclass(eq=False)
class _Work:
    graph: Graph
    ranges: Iterable[Calibration]
    model: onnx.ModelProto = field(init=False)
    reasons: dict[str, str] = field(default_factory=dict)
    merged: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(self.graph.model)
        self._node = {node.name: node for node in self.model.graph.node}
        self._constants = {c.name for c in self.model.graph.initializer}
        self._readers = readers(self.model)
        self._outputs = {value.name for value in self.model.graph.output}
        self._seen: dict[tuple[str, int], dict[int, Span]] = {}
        for r in self.ranges:
            self._seen.setdefault((r.layer, r.operation), {})[r.operand] = (r.low, r.high)
        self._quantized: list[str] = []  # names of nodes
        self._rounded: dict[str, Span] = {}
        self._cause: dict[str, str] = {}  # tensor -> the layer that has it quantized
        self._operands: list[tuple[NodeProto, int, Span, str]] = []

    # ---- what a layer asks for

    def take(self, layer: Layer) -> None:
        """Mark the nodes of `layer`, or say why there is nothing to mark."""
        if layer.role == "pooling" or layer.state == "rounds output":
            self._round_output(layer)
        elif layer.role == "recurrent":
            self.reasons[layer.name] = "the static quantizer leaves recurrent layers in float"
        elif layer.state == "stores":
            self._table(layer)
        else:
            self._products(layer)

    def _products(self, layer: Layer) -> None:
        if self._has_norm_left(layer):
            self.reasons[layer.name] = (
                "its batch norm stays apart in the exported graph, which the evidence has folded in"
            )
            return
        nodes = [self._node[node.name] for node in self.graph.products(layer.name)]
        numbers = sorted(
            n for (name, n), seen in self._seen.items()
            if name == layer.name and n >= 0 and any(operand >= 0 for operand in seen)
        )  # fmt: skip
        if len(nodes) < len(numbers) and _all_equal(self._seen[layer.name, n] for n in numbers):
            numbers = numbers[: len(nodes)]  # products of equal operands were made one
        if len(nodes) != len(numbers):
            self.reasons[layer.name] = (
                f"the exported graph multiplies {len(nodes)} times where {len(numbers)} products "
                "were calibrated"
            )
            return
        for node, number in zip(nodes, numbers, strict=True):
            self._product(layer, node, self._seen[layer.name, number])

    def _has_norm_left(self, layer: Layer) -> bool:
        norms = {one.batch_norm for one in layer.fused}
        return any(
            node.op_type == "BatchNormalization"
            and self.graph.layer_of[node.name] in norms | {layer.name}
            for node in self.model.graph.node
            if norms
        )

    def _product(self, layer: Layer, node: NodeProto, seen: Mapping[int, Span]) -> None:
        operands = [span for operand, span in sorted(seen.items()) if operand != OUTPUT]
        slots = [i for i, given in enumerate(node.input[:2]) if given not in self._constants]
        if node.op_type not in QUANTIZABLE:
            self.reasons[layer.name] = f"ONNX Runtime has no integer kernel for {node.op_type}"
            return
        if len(slots) != len(operands):
            self.reasons[layer.name] = (
                f"node {node.name} reads {len(slots)} activations where {len(operands)} were "
                "calibrated"
            )
            return
        self._quantized.append(node.name)
        self._operands += [
            (node, slot, span, layer.name) for slot, span in zip(slots, operands, strict=True)
        ]
        self._cause |= {given: layer.name for given in node.input if given in self._constants}
        if node.op_type == "Conv" and OUTPUT in seen:
            span = self._behind_norm(node) or seen[OUTPUT]
            self._round(node.output[0], span, layer.name)
            self._close_with_clip(node.output[0], span, layer.name)

    def _behind_norm(self, node: NodeProto) -> Span | None:
        """The range after a batch norm that only the exporter folds: others could read what comes
        before it in the person's model, and nobody does in the graph.
        """
        norm = self.graph.absorbed.get(node.name, "")
        layer = self.graph.layer_of[node.name]
        span = self._seen.get((norm, MODULE_OUTPUT[0]), {}).get(MODULE_OUTPUT[1])
        if span is not None and layer is not None:
            self.merged[norm] = layer
        return span

    def _close_with_clip(self, tensor: str, span: Span, layer: str) -> None:
        """An activation that only clips becomes the end of the convolution's kernel: what lies
        beyond the grid is clipped anyway.
        """
        readers = self._readers.get(tensor, [])
        if len(readers) != 1 or readers[0].op_type not in CLIPS or tensor in self._outputs:
            return
        self._quantized.append(readers[0].name)
        self._round(readers[0].output[0], span, layer)
        behind = self.graph.layer_of[readers[0].name]
        if behind is not None and behind != layer:
            self.merged[behind] = layer

    def _round_output(self, layer: Layer) -> None:
        span = self._seen.get((layer.name, MODULE_OUTPUT[0]), {}).get(MODULE_OUTPUT[1])
        found = self._own_outputs(layer.name)
        if span is None or len(found) != 1:
            self.reasons[layer.name] = (
                "it was not calibrated" if span is None
                else "it is no node of its own in the exported graph" if not found
                else f"it has {len(found)} outputs"
            )  # fmt: skip
            return
        self._round(found[0], span, layer.name)
        for node in self.model.graph.node:
            # The largest of rounded values is the rounded largest, so that the grid of the
            # output serves the input too, and the kernel works on integers.
            if node.op_type == "MaxPool" and self.graph.layer_of[node.name] == layer.name:
                self._quantized.append(node.name)
                self._operands.append((node, 0, span, layer.name))

    def _own_outputs(self, layer: str) -> list[str]:
        """Tensors of `layer` that others read."""
        return [
            tensor
            for node in self.model.graph.node
            if self.graph.layer_of[node.name] == layer
            for tensor in node.output
            if tensor in self._outputs
            or any(self.graph.layer_of[r.name] != layer for r in self._readers.get(tensor, ()))
        ]

    def _table(self, layer: Layer) -> None:
        found = [
            node
            for node in self.model.graph.node
            if node.op_type == "Gather"
            and self.graph.layer_of[node.name] == layer.name
            and node.input[0] in self._constants
        ]
        if not found:
            self.reasons[layer.name] = "its table is no constant of a look-up in the exported graph"
        for node in found:
            self._quantized.append(node.name)
            self._cause[node.input[0]] = layer.name
            self._cause[node.output[0]] = layer.name

    def _round(self, tensor: str, span: Span, layer: str) -> None:
        self._rounded.setdefault(tensor, span)
        self._cause.setdefault(tensor, layer)

    # ---- the quantizer

    def done(self) -> Integers:
        """The quantized model."""
        if not self._quantized and not self._rounded:
            return Integers(self.model, self.reasons, self.merged)
        floats = [self._node[n] for n in self._quantized if self._node[n].op_type in FLOAT_OUTPUT]
        part_activations(self.model, floats, self._rounded, ALIAS)
        spans = dict(self._rounded)
        self._own_operands(spans)
        for copy, given in own_constants(self.model, self._quantized, ALIAS).items():
            self._cause[copy] = self._cause.get(given, "")
        add_infer_metadata(self.model)
        quantizer = QDQQuantizer(
            self.model, True, False, QuantType.QInt8, QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax,
                        {t: (np.float32(a), np.float32(b)) for t, (a, b) in spans.items()}),
            self._quantized or [""], [],
            sorted({self._node[name].op_type for name in self._quantized}),
            {"OpTypesToExcludeOutputQuantization": FLOAT_OUTPUT},
        )  # fmt: skip
        for tensor in self._rounded:
            reader = self._readers.get(tensor, [])
            if not (reader and reader[0].name in self._quantized and reader[0].op_type in CLIPS):
                quantizer.quantize_activation_tensor(tensor)
        model = quantizer.quantize_model()
        drop_aliases(model, ALIAS)
        round_added_biases(model, self._quantized, ALIAS)
        self._name_layers(model)
        ONNXModel(model).topological_sort()
        return Integers(model, self.reasons, self.merged)

    def _own_operands(self, spans: dict[str, Span]) -> None:
        """Give the operands of chosen nodes names of their own, shared where grids are equal."""
        aliases: dict[tuple[str, Span], str] = {}
        types = {v.name: v for v in (*self.model.graph.value_info, *self.model.graph.input)}
        for node, slot, span, layer in self._operands:
            tensor = node.input[slot]
            if self._rounded.get(tensor) == span:
                continue  # it is rounded on that grid for all its readers
            alias = aliases.get((tensor, span))
            if alias is None:
                alias = aliases[tensor, span] = f"{tensor}{ALIAS}_{len(aliases)}"
                copy = onnx.helper.make_node("Identity", [tensor], [alias], f"{alias}_copy")
                self.model.graph.node.append(copy)
                known = self.model.graph.value_info.add()
                known.CopyFrom(types[tensor])
                known.name = alias
                spans[alias] = span
                self._cause[alias] = layer
            node.input[slot] = alias

    def _name_layers(self, model: onnx.ModelProto) -> None:
        """Write into every Q and DQ the layer that caused it."""
        for node in model.graph.node:
            if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
                continue
            tensor = node.name
            for suffix in (*_SUFFIXES, "_quantized"):
                tensor = tensor.removesuffix(suffix)
            layer = self._cause.get(tensor, "")
            if layer:
                node.metadata_props.add(key=LAYER_KEY, value=layer)


def _all_equal(values: Iterable[object]) -> bool:
    first, *rest = values
    return all(value == first for value in rest)
