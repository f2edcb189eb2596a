"""Which nodes of a graph run in a half-precision format: those of its layers, and glue between."""

from __future__ import annotations

from core.export.targets.contract import ExportRequest
from core.numerics import precision as registry
from core.onnx_graph.node_table import SHAPES


def nodes_in(request: ExportRequest, precision: str) -> list[str]:
    """Names of all nodes that run in the float format `precision`, in the graph's order.

    All nodes of a layer run in its format. Glue (a residual addition, a reshape) runs in the
    format of what it reads if that is one, else in the reference, like a join of the data flow.
    """
    if request.graph is None:
        return []
    got = {line.layer: line.got for line in request.lines}
    formats: dict[str, str] = {}
    found = []
    for node, layer in zip(request.graph.nodes, request.graph.owner, strict=True):
        asked = got.get(layer)
        given = {formats[t] for t in node.inputs if t in formats}
        if asked is None or (layer and node.op_type in SHAPES and asked != precision):
            asked = given.pop() if len(given) == 1 else registry.REFERENCE
        leaves = asked if registry.get(asked).is_cast else registry.REFERENCE
        formats |= dict.fromkeys(node.outputs, leaves)
        if asked == precision:
            found.append(node.name)
    return found
