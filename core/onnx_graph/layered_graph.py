"""An ONNX graph in float32 whose nodes know their layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx

from core.numerics import kernel_table
from core.numerics.scheme import Scheme

HEAVY = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum"})
"""Operators that multiply: the ones that integer kernels exist for."""
WITH_WEIGHT = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
LAYER_KEY = "layer"
"""Key of the metadata in which a node of a built file names its layer."""


def float_kernels(scheme: Scheme) -> frozenset[str]:
    """Products that multiply floats under `scheme` whatever the precision of their layer."""
    return frozenset(
        op
        for op, runs in (("ConvTranspose", "conv_transpose"), ("Einsum", "einsum_weight"))
        if kernel_table.operation_state(scheme.name, runs) != "computes"
    )


@dataclass(frozen=True, eq=False)
class LayeredGraph:
    """A model in float32. Nobody changes `model`; builders copy it.

    `layer_of` maps the name of every node to its layer, None for glue. `inputs` are the names
    of the graph's inputs in the order of the source's input tensors. `output` is the name of the
    output that is judged.
    """

    model: onnx.ModelProto
    layer_of: Mapping[str, str | None]
    inputs: tuple[str, ...]
    output: str

    def products(self, layer: str) -> list[onnx.NodeProto]:
        """The multiplying nodes of `layer` in the order in which the layer runs them."""
        return [
            node
            for node in self.model.graph.node
            if node.op_type in HEAVY and self.layer_of[node.name] == layer
        ]


def attribute(node: onnx.NodeProto, name: str, usual: Any) -> Any:
    """The attribute `name` of a node, and what stands for it where it is not written."""
    found = next((a for a in node.attribute if a.name == name), None)
    return usual if found is None else onnx.helper.get_attribute_value(found)


def layer_of_node(node: onnx.NodeProto) -> str | None:
    """The layer that a node's metadata names."""
    return next((p.value for p in node.metadata_props if p.key == LAYER_KEY), None)
