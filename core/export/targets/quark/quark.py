"""AMD Quark for ONNX: a script with a `QConfig` that excludes every other node."""

from __future__ import annotations

from core.export.targets.contract import ExportRequest
from core.export.targets.onnx_mixed import packed_nodes
from core.export.targets.script import python


def render(request: ExportRequest) -> str:
    """A Python script that quantizes the chosen nodes, or their weights by groups."""
    constants = {"INT8_NODES": request.integers, "PACKED": packed_nodes(request)}
    return python(request, __name__, constants)
