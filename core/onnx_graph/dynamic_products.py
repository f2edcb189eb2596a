"""Layers in INT8-dynamic: which of their products quantize what they take in while they run."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto

from core.layers import LayerTable
from core.numerics.precision import Precision
from core.numerics.states import sets_ranges
from core.onnx_graph.group_weights import Packed, Packer
from core.onnx_graph.layered_graph import LayeredGraph
from core.onnx_graph.surgery import copied, with_ranges_set

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
    packer = Packer(copied(model))
    reasons, products = {}, {}
    for name, precision in asked.items():
        layer = layers.layers[layers.index[name]]
        if not sets_ranges(layer, precision):
            if not layer.takes_dynamic:
                reasons[name] = MATRICES_ALONE
            continue
        nodes, reason = packer.replaced(graph, name)
        if reason:
            reasons[name] = reason
        else:
            products[name] = [node.name for node in nodes]
    return Packed(with_ranges_set(model, products), reasons, {})
