"""Weights by groups: which matrices of a layer a tool names, and whose grid they come to lie on."""

from __future__ import annotations

from dataclasses import dataclass

from core.export.targets.capability import Capability
from core.export.targets.contract import Line
from core.export.targets.modules import modules_of
from core.layers import Layer
from core.onnx_graph.node_table import Graph

MEASURED = "ONNX Runtime's grid (a group's scale is its signed largest value over -2^(bits-1))"
"""Where `core.numerics.groups` puts weights, and so where all evidence has them."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight of a product by the tool's `name` ("" where none is known), the class of its module
    or the type of its node, and along how many `inputs` its groups lie (0: unknown).
    """

    name: str
    kind: str
    inputs: int


def matrices(target: Capability, layer: Layer, graph: Graph | None) -> tuple[Matrix, ...]:
    """The matrices of `layer` that formats of weights alone keep by groups, as `target` names what
    reads them, in order.
    """
    inputs = {t.name: t.shape[t.group_axis] for t in layer.tensors if t.group_axis >= 0}
    if target.speaks == "modules":
        return tuple(
            Matrix(m.path, m.kind, inputs[f"{m.path}.weight"])
            for m in modules_of(layer)
            if f"{m.path}.weight" in inputs
        )
    if graph is None:
        return tuple(Matrix("", "MatMul", count) for count in inputs.values())
    return tuple(
        # An exporter may have renamed or transposed a weight: then all of the layer's have to fit.
        Matrix(node.name, node.op_type, inputs.get(node.inputs[1], 0))
        for node in graph.of.get(layer.name, ())
        if node.op_type in ("MatMul", "Gemm") and node.inputs[1] in graph.held
    )


def grid(target: Capability, lines: tuple[Line, ...]) -> str:
    """Whose grid the weights by groups of a file lie on, in a sentence; "" where it has none."""
    if not any(line.got in target.grouped for line in lines):
        return ""
    if not target.grid:
        return f"Weights by groups are the bits that were measured, on {MEASURED}."
    return f"Weights by groups were measured on {MEASURED}; {target.package} puts them on {target.grid}."
