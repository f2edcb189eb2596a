"""Which nodes are executed as one kernel with an INT8 product, and so have to be chosen with it."""

from __future__ import annotations

from core.export.targets.contract import ExportRequest

CLIPPING = ("Relu", "Clip")


def with_activations(request: ExportRequest) -> list[str]:
    """Names of INT8 nodes, with the activation that a convolution's kernel takes in: otherwise
    its output would be rounded before the activation, which differs by as much as the error.
    """
    chosen = set(request.integers)
    if request.graph is None:
        return request.integers
    for group in request.graph.fused:
        if group[0].op_type == "Conv" and group[0].name in chosen:
            chosen |= {node.name for node in group[1:] if node.op_type in CLIPPING}
    return [node.name for node in request.graph.nodes if node.name in chosen]
