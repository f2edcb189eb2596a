"""NVIDIA ModelOpt AutoCast: the nodes of an ONNX model that must not go to FP16."""

from __future__ import annotations

from core.export.targets.contract import ExportRequest
from core.export.targets.floats import nodes_in
from core.export.targets.script import python


def render(request: ExportRequest) -> str:
    """A Python script with AutoCast's exclusions."""
    half = set(nodes_in(request, "FP16"))
    nodes = request.graph.nodes if request.graph is not None else ()
    return python(request, __name__, {"FP32_NODES": [n.name for n in nodes if n.name not in half]})
