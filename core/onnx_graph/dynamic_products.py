"""Products with a matrix in 8 bits that quantize what they take in while they run.

DynamicQuantizeLinear lays a tensor on an unsigned affine grid over its own minimum and maximum widened
to hold 0, MatMulInteger multiplies integers, and the product of both scales makes floats of the sums:
what `quantize_dynamic` of onnxruntime writes (quantization/operators/matmul.py), with weights as INT8
has them. ONNX Runtime makes one kernel of the nodes, DynamicQuantizeMatMul or MatMulIntegerToFloat.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto

from core.layers import LayerTable
from core.numerics.precision import Precision
from core.numerics.states import sets_ranges
from core.onnx_graph.group_weights import Packed, Packer
from core.onnx_graph.layered_graph import LayeredGraph, attribute, layer_of_node
from core.onnx_graph.surgery import MARK, copied
from core.onnx_graph.weights_only import on_grid

MATRICES_ALONE = "ranges are set while it runs for products with matrices alone"


def quantize_dynamic(
    model: ModelProto, graph: LayeredGraph, layers: LayerTable, asked: Mapping[str, Precision]
) -> Packed:
    """A copy of `model`, made of `graph`, in which the layers `asked` multiply integers where they
    multiply with matrices that the graph holds as constants. Layers whose kernel sets ranges in any
    case are left as they are.
    """
    asked = {n: p for n, p in asked.items() if not layers.layers[layers.index[n]].dynamic}
    if not asked:
        return Packed(model, {}, {})
    model = copied(model)
    made = _Dynamic(model)
    reasons = {}
    for name, precision in asked.items():
        layer = layers.layers[layers.index[name]]
        if not sets_ranges(layer, precision):
            if not layer.takes_dynamic:
                reasons[name] = MATRICES_ALONE
            continue
        nodes, reason = made.replaced(graph, name)
        if reason:
            reasons[name] = reason
            continue
        for node in nodes:
            made.put(node)
    made.finish()
    return Packed(model, reasons, {})


class _Dynamic(Packer):
    """Puts products of integers in the place of products of `model`."""

    def __init__(self, model: ModelProto) -> None:
        super().__init__(model)
        self._matrices: dict[tuple[str, bool], tuple[str, str]] = {}
        self._taken: dict[tuple[str | None, str], list[str]] = {}

    def put(self, node: NodeProto) -> None:
        """Have a product of integers stand for `node`, and an Add of what a Gemm adds."""
        given, weight = node.input[:2]
        is_rows = node.op_type == "Gemm" and bool(attribute(node, "transB", 0))
        matrix, scales = self._matrix(weight, is_rows=is_rows)
        new: list[NodeProto] = []
        stem = f"{node.name}{MARK}"

        def add(
            op: str, inputs: list[str], outputs: list[str], name: str = "", **more: int
        ) -> None:
            made = onnx.helper.make_node(op, inputs, outputs, name or f"{stem}_{len(new)}")
            made.attribute.extend(onnx.helper.make_attribute(n, v) for n, v in more.items())
            new.append(made)

        key = layer_of_node(node), given
        if key not in self._taken:
            self._taken[key] = [f"{stem}_{what}" for what in ("taken", "scale", "zero_point")]
            add("DynamicQuantizeLinear", [given], self._taken[key])
        taken, scale, zero_point = self._taken[key]
        added = node.input[2] if len(node.input) > 2 else ""
        product = f"{stem}_product" if added else node.output[0]
        add("MatMulInteger", [taken, matrix, zero_point], [f"{stem}_sums"], node.name)
        add("Cast", [f"{stem}_sums"], [f"{stem}_floats"], to=TensorProto.FLOAT)
        add("Mul", [scale, scales], [f"{stem}_scales"])
        add("Mul", [f"{stem}_floats", f"{stem}_scales"], [product])
        if added:
            add("Add", [product, added], [node.output[0]])
        for one in new:
            one.metadata_props.extend(node.metadata_props)
        self._instead[node.name] = new

    def _matrix(self, name: str, *, is_rows: bool) -> tuple[str, str]:
        """Names of the constant `name` [inputs, outputs] as integers, and of its scales [outputs]."""
        key = name, is_rows
        if key not in self._matrices:
            values = onnx.numpy_helper.to_array(self._held[name])
            integers, scales = on_grid(np.asarray(values.T if is_rows else values), (1,))
            stem = f"{name}{MARK}_dynamic" + ("_rows" if is_rows else "")
            self._matrices[key] = (
                self._add(f"{stem}_quantized", np.ascontiguousarray(integers)),
                self._add(f"{stem}_scale", scales.reshape(-1)),
            )
        return self._matrices[key]
