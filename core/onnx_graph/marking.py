"""Which nodes and tensors of a graph a layer in integers asks to be quantized, and on which grids."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from onnx import NodeProto

from core.layers import Layer
from core.numerics.calibrate.calibration import OUTPUT, Calibration
from core.numerics.einsum import channel_axis
from core.numerics.ranges import MODULE_OUTPUT
from core.numerics.scheme import Scheme
from core.onnx_graph.grids import KINDS, grids_of
from core.onnx_graph.layered_graph import LayeredGraph, float_kernels
from core.onnx_graph.node_table import RECURRENT
from core.onnx_graph.surgery import Grids, Marks, Span
from core.onnx_graph.weights_only import OF_RECURRENT, StoredWeight

NORM_LEFT = "its batch norm stays apart in the exported graph, which the evidence has folded in"

ONE_OUTPUT = ("layer_norm", "batch_norm", "activation", "pooling")
"""Roles of layers that give one tensor a call."""


class LayerMarks(Marks):
    """`Marks` of layers; `reasons` and `merged` as in `Integers`."""

    def __init__(self, graph: LayeredGraph, ranges: Iterable[Calibration], scheme: Scheme) -> None:
        super().__init__(graph.model, Grids(**grids_of(scheme)))
        self.graph, self.scheme = graph, scheme
        self._floats = float_kernels(scheme)
        self.reasons: dict[str, str] = {}
        self.merged: dict[str, str] = {}
        self.stored: list[StoredWeight] = []
        constants = self.model.graph.initializer
        self._sizes = {c.name: math.prod(c.dims) for c in constants}
        self._ranks = {
            v.name: len(v.type.tensor_type.shape.dim) for v in self.model.graph.value_info
        }
        self._ranks |= {c.name: len(c.dims) for c in constants}
        self._seen: dict[tuple[str, int], dict[int, Span]] = {}
        for r in ranges:
            self._seen.setdefault((r.layer, r.operation), {})[r.operand] = (r.low, r.high)

    def take(self, layer: Layer) -> None:
        """Mark the nodes of `layer`, or say why there is nothing to mark."""
        if layer.state == "float":
            self.reasons[layer.name] = f"scheme {self.scheme.name} has no integer kernel for it"
            return
        if self._has_norm_left(layer):
            self.reasons[layer.name] = NORM_LEFT
        elif layer.role == "pooling" or layer.state == "rounds output":
            self._round_output(layer)
        elif layer.state == "stores" and any(spec.kind == "table" for spec in layer.tensors):
            self.table(layer)
        elif layer.state == "stores" or layer.dynamic:
            self._weights(layer)
        else:
            self._products(layer)

    def _products(self, layer: Layer) -> None:
        nodes = [
            self.node[node.name]
            for node in self.graph.products(layer.name)
            if node.op_type not in self._floats
        ]
        numbers = sorted(
            n for (name, n), seen in self._seen.items()
            if name == layer.name and n >= 0 and any(operand >= 0 for operand in seen)
        )  # fmt: skip
        rounded = tuple(numbers)
        if len(nodes) < len(numbers) and _all_equal(self._seen[layer.name, n] for n in numbers):
            numbers = numbers[: len(nodes)]  # products of equal operands were made one
        if len(nodes) != len(numbers):
            self.reasons[layer.name] = (
                f"the exported graph multiplies {len(nodes)} times where {len(numbers)} products "
                "were calibrated"
            )
            return
        if self._weights(layer, rounded):
            for node, number in zip(nodes, numbers, strict=True):
                self._product(layer, node, self._seen[layer.name, number])
        if layer.name not in self.reasons and any(spec.kind == "table" for spec in layer.tensors):
            self.table(layer)

    def _weights(self, layer: Layer, rounded: tuple[int, ...] = ()) -> bool:
        """Store the weights of `layer` that none of the products `rounded` reads first; whether the
        graph holds them all.
        """
        found = [
            one
            for node in self.model.graph.node
            if self.graph.layer_of[node.name] == layer.name
            for one in self._weights_of(node, dynamic=layer.dynamic)
        ]
        wanted = sum(
            spec.size
            for spec in layer.tensors
            if spec.kind == "weight" and spec.operation not in rounded
        )
        held = {
            name: self._sizes[name] for name in (self.node[w.node].input[w.slot] for w in found)
        }
        if sum(held.values()) != wanted:
            self.reasons[layer.name] = (
                f"the exported graph holds {sum(held.values()):,} of its {wanted:,} weights as "
                "constants of its products"
            )
            return False
        self.stored += found
        return True

    def _weights_of(self, node: NodeProto, *, dynamic: bool) -> list[StoredWeight]:
        """The inputs of a node that are weights, with the axes that have one scale an index."""
        if node.op_type in RECURRENT:
            axes = (0, 1) if self.grids.per_channel else ()
            return [
                StoredWeight(node.name, slot, axes, dynamic)
                for slot in OF_RECURRENT
                if node.input[slot] in self.constants
            ]
        if node.op_type not in self._floats:
            return []  # ONNX Runtime would round what meets it in a MatMul too
        return [
            StoredWeight(node.name, slot, self._channel_axes(node, slot))
            for slot, name in enumerate(node.input[:2])
            if name in self.constants
        ]

    def _channel_axes(self, node: NodeProto, slot: int) -> tuple[int, ...]:
        if not self.grids.per_channel:
            return ()
        text = {a.name: a for a in node.attribute}
        if node.op_type == "Einsum":
            operands = [np.empty((1,) * self._rank(name)) for name in node.input]
            axis = channel_axis(text["equation"].s.decode(), slot, operands)
            return () if axis is None else (axis,)
        return (1,)

    def _rank(self, tensor: str) -> int:
        return self._ranks.get(tensor, 0)

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
        slots = self.slots(node)
        if node.op_type not in KINDS:
            self.reasons[layer.name] = f"ONNX Runtime has no integer kernel for {node.op_type}"
            return
        if len(slots) != len(operands):
            self.reasons[layer.name] = (
                f"node {node.name} reads {len(slots)} activations where {len(operands)} were "
                "calibrated"
            )
            return
        output = None
        if node.op_type in self.grids.rounded and OUTPUT in seen:
            output = seen[OUTPUT]
        self.product(node, operands, output)
        clip = self.clip_behind(node)
        if clip is not None and output is not None:
            behind = self.graph.layer_of[clip.name]
            if behind is not None and behind != layer.name:
                self.merged[behind] = layer.name

    def _round_output(self, layer: Layer) -> None:
        span = self._seen.get((layer.name, MODULE_OUTPUT[0]), {}).get(MODULE_OUTPUT[1])
        found = self.own_outputs(layer.name)
        if span is None or not found or (len(found) > 1 and not self._by_call(layer, found)):
            self.reasons[layer.name] = (
                "it was not calibrated" if span is None
                else "it is no node of its own in the exported graph" if not found
                else f"it has {len(found)} outputs"
            )  # fmt: skip
            return
        for tensor in found:
            self.round(tensor, span)

    def _by_call(self, layer: Layer, found: list[str]) -> bool:
        """Whether the tensors `found` are what `layer` gives in one call each, so that its one range
        is of them all: it is of a kind with one output, and runs all it runs that many times.
        """
        nodes = [n for n in self.model.graph.node if self.graph.layer_of[n.name] == layer.name]
        kinds = Counter(node.op_type for node in nodes)
        firsts = {node.output[0]: node.op_type for node in nodes}
        return (
            layer.role in ONE_OUTPUT
            and all(count % len(found) == 0 for count in kinds.values())
            and firsts.keys() >= set(found)
            and len({firsts[tensor] for tensor in found}) == 1
        )

    def own_outputs(self, layer: str) -> list[str]:
        """Tensors of `layer` that others read."""
        return [
            tensor
            for node in self.model.graph.node
            if self.graph.layer_of[node.name] == layer
            for tensor in node.output
            if tensor in self.outputs
            or any(self.graph.layer_of[r.name] != layer for r in self.readers.get(tensor, ()))
        ]

    def table(self, layer: Layer) -> None:
        """Mark the look-ups of `layer`, whose tables are kept in integers."""
        found = [
            node
            for node in self.model.graph.node
            if node.op_type == "Gather"
            and self.graph.layer_of[node.name] == layer.name
            and node.input[0] in self.constants
        ]
        if not found:
            self.reasons[layer.name] = "its table is no constant of a look-up in the exported graph"
        self.nodes += [node.name for node in found]


def _all_equal(values: Iterable[object]) -> bool:
    first, *rest = values
    return all(value == first for value in rest)
