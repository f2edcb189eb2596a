"""AMD Quark for ONNX: a script with a `QConfig` that excludes every other node."""

from __future__ import annotations

from core.export.targets.contract import ExportRequest
from core.export.targets.script import python


def render(request: ExportRequest) -> str:
    """A Python script that quantizes the chosen nodes."""
    return python(request, __name__, {"INT8_NODES": request.integers})
