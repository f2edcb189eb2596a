"""Which kernels ONNX Runtime executes for each layer, read off its optimised graph."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import NodeProto, TensorProto

from core.onnx_graph.layered_graph import layer_of_node
from core.onnx_graph.session import executed

INTEGER = frozenset(
    {
        "QLinearConv", "ConvInteger", "QGemm", "QLinearMatMul", "MatMulInteger",
        "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QAttention",
        "QLinearAveragePool", "QLinearGlobalAveragePool", "NhwcMaxPool",
    }
)  # fmt: skip
"""Operators whose kernels multiply or compare integers."""
FLOAT = frozenset(
    {
        "Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "MatMul", "FusedMatMul", "Gemm",
        "FusedGemm", "Einsum", "Attention", "MultiHeadAttention", "LSTM", "GRU", "RNN",
    }
)  # fmt: skip
"""Operators that multiply floats."""
SET_RANGES = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"})
"""Operators that take floats and set ranges over what a run gives them."""
RENAMED = re.compile(r"^fused |^InsertedPrecisionFreeCast_|(_nchwc|_token_\d+)$")
"""What the optimiser adds to names."""


@dataclass(frozen=True, eq=False)
class Executed:
    """Operators of the executed graph by layer; "" holds those of no layer."""

    by_layer: Mapping[str, tuple[str, ...]]
    half: frozenset[str] = frozenset()

    def of(self, layer: str) -> tuple[str, ...]:
        """What is executed for `layer`, in order."""
        return self.by_layer.get(layer, ())

    def split(self, layer: str, but: Collection[str] = ()) -> tuple[list[str], list[str]]:
        """The multiplying operators of `layer`: on integers, and on floats, without those in `but`."""
        kernels = self.of(layer)
        return [k for k in kernels if k in INTEGER], [
            k for k in kernels if k in FLOAT and k not in but
        ]

    def runs_half(self, layer: str) -> bool:
        """Whether an operator of `layer` reads and gives float16."""
        return layer in self.half

    def as_wanted(self, integer: Collection[str]) -> int:
        """Multiplying operators on integers in the layers `integer`, less those in others."""
        return sum(
            (1 if layer in integer else -1) * len(self.split(layer)[0]) for layer in self.by_layer
        )

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each operator is executed."""
        return Counter(kernel for kernels in self.by_layer.values() for kernel in kernels)


def tensor_layers(model: onnx.ModelProto) -> dict[str, str]:
    """Tensor, or name of a node -> the layer whose node makes it, or which it belongs to."""
    found: dict[str, str] = {}
    for node in model.graph.node:
        layer = layer_of_node(node)
        if layer is not None:
            found |= dict.fromkeys((node.name, *node.output), layer)
    return found


def executed_kernels(model: onnx.ModelProto, disabled: Sequence[str] = ()) -> Executed:
    """What is executed for each layer of `model` on this machine.

    The optimiser loses metadata and renames nodes, but keeps the names of tensors up to a suffix
    for their layout; so nodes are found again by their own name or by what they give.
    """
    graph = executed(model, disabled)
    by_layer: dict[str, list[str]] = {}
    types = {v.name: v.type.tensor_type.elem_type for v in graph.graph.value_info}
    half: set[str] = set()
    for node, layer in zip(graph.graph.node, executed_layers(graph, model), strict=True):
        by_layer.setdefault(layer, []).append(node.op_type)
        if (
            node.op_type in FLOAT and node.output
            and types.get(node.output[0]) == TensorProto.FLOAT16
        ):  # fmt: skip
            half.add(layer)
    return Executed({name: tuple(ops) for name, ops in by_layer.items()}, frozenset(half))


def executed_layers(graph: onnx.ModelProto, model: onnx.ModelProto) -> list[str]:
    """The layer of every node of the executed `graph` of `model`; "" for those of none.

    A node that nothing is known of, as from the body of a function, belongs to the layer that
    alone reads what it gives.
    """
    known = tensor_layers(model)
    glue = {node.name for node in model.graph.node if layer_of_node(node) is None}
    found = [layer_of_output(node, known) for node in graph.graph.node]
    behind: dict[str, set[str]] = {}
    for i in range(len(found) - 1, -1, -1):
        node = graph.graph.node[i]
        if not found[i] and RENAMED.sub("", node.name) not in glue:
            layers = {layer for given in node.output for layer in behind.get(given, ())}
            found[i] = layers.pop() if len(layers) == 1 else ""
        for given in node.input:
            behind.setdefault(given, set()).add(found[i])
    return found


def layer_of_output(node: NodeProto, layers: Mapping[str, str]) -> str:
    """The layer of an executed node, by the tensors that it gives; "" where none is known."""
    for given in (node.name, *node.output):  # a product may give what the next layer quantizes
        name = RENAMED.sub("", given)
        if name in layers:
            return layers[name]
    return layer_of_node(node) or ""
