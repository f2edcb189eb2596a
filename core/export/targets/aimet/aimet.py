"""Qualcomm AIMET for ONNX: a script that sets quantizers, since encodings need scales."""

from __future__ import annotations

from core.export.targets.contract import ExportRequest
from core.export.targets.script import python


def render(request: ExportRequest) -> str:
    """A Python script that simulates the map and exports its encodings."""
    return python(
        request, __name__, {"INT8_NODES": request.integers, "FP16_NODES": request.names("FP16")}
    )
