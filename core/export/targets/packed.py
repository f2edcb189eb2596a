"""Weights by groups: which matrices of a layer a tool names, and whose grid they come to lie on."""

from __future__ import annotations

from dataclasses import dataclass

from core.export.targets.capability import Capability
from core.export.targets.contract import Line
from core.export.targets.modules import modules_of
from core.layers import Layer
from core.numerics import quantizers
from core.numerics.precision import TensorFormat
from core.onnx_graph.node_table import Graph

GRIDS = {
    quantizers.DEFAULT.name: "ONNX Runtime's grid (a group's scale is its signed largest value over "
    "-2^(bits-1))",
    quantizers.HQQ.name: "HQQ's grid (zero points of its own), as ONNX Runtime finds it",
    quantizers.TORCHAO.name: "torchao's grid (a group's scale is its largest magnitude over "
    "2^(bits-1) - 0.5)",
}
"""Where a quantizer puts weights by groups, in words."""
PRODUCTS = ("Gemm", "MatMul")
"""Types of nodes that read such a weight."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight of a product by the tool's `name` ("" where none is known), the class of its module
    or the type of its node, and along how many `inputs` its groups lie: several counts where an
    exporter renamed the weight, so that it may be any of the layer's.
    """

    name: str
    kind: str
    inputs: tuple[int, ...]

    def refused(self, target: Capability, kept: TensorFormat) -> str:
        """Why `target` does not keep it by such groups; "" where it does."""
        if self.kind not in target.packs:
            return self.kind
        odd = [count for count in self.inputs if count % kept.group]
        if target.whole_groups and odd:
            return f"{odd[0]} inputs, which groups of {kept.group} do not divide"
        return ""

    def regrouped(self, target: Capability, kept: TensorFormat) -> str:
        """What groups `target` makes in place of those of `kept`; "" where it makes these."""
        for count in self.inputs:
            own = _own_group(target, kept, count)
            if own != min(kept.group, count):
                asked = f"groups of {own} of its {count} inputs, not of {min(kept.group, count)}"
                return f"{self.name or self.kind} in {asked}"
        return ""


def _own_group(target: Capability, kept: TensorFormat, inputs: int) -> int:
    """How many of `inputs` share a scale at `target`."""
    if not target.own_groups:
        return min(kept.group, inputs)
    if kept.bits == 8 or inputs <= target.own_groups[0]:
        return inputs
    return next((size for size in target.own_groups if inputs % size == 0), inputs)


def matrices(target: Capability, layer: Layer, graph: Graph | None) -> tuple[Matrix, ...]:
    """The matrices of `layer` that formats of weights alone keep by groups, as `target` names what
    reads them, in order.
    """
    inputs = {
        t.name: (t.shape[t.group_axis],)
        for t in layer.tensors
        if t.group_axis >= 0 and t.kind != "table"
    }
    if target.speaks == "modules":
        return tuple(
            Matrix(m.path, m.kind, inputs[f"{m.path}.weight"])
            for m in modules_of(layer)
            if f"{m.path}.weight" in inputs
        )
    if graph is None:
        return tuple(Matrix("", PRODUCTS[-1], counts) for counts in inputs.values())
    some = tuple(dict.fromkeys(count for counts in inputs.values() for count in counts))
    return tuple(
        Matrix(node.name, node.op_type, inputs.get(node.inputs[1], some))
        for node in graph.of.get(layer.name, ())
        if node.op_type in PRODUCTS and len(node.inputs) > 1 and node.inputs[1] in graph.held
    )


def holds(target: Capability, quantizer: str) -> bool:
    """Whether a file for `target` has weights by groups on the grid of `quantizer`."""
    return quantizer in target.holds and not target.grid


def grid(target: Capability, lines: tuple[Line, ...], quantizer: str) -> str:
    """Whose grid the weights by groups of a file lie on that were measured on that of `quantizer`, in
    a sentence; "" where it has none.
    """
    if not any(line.got in target.grouped for line in lines):
        return ""
    if holds(target, quantizer):
        return f"Weights by groups are the bits that were measured, on {GRIDS[quantizer]}."
    puts = target.grid or GRIDS[quantizers.DEFAULT.name]
    return f"Weights by groups were measured on {GRIDS[quantizer]}; {target.package} puts them on {puts}."
