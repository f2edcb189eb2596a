"""Qualcomm AIMET for ONNX: a script that sets quantizers, since encodings need scales."""

from __future__ import annotations

from core.export.targets.contract import ExportRequest
from core.export.targets.script import python


def render(job: ExportRequest) -> str:
    """A Python script that simulates the map and exports its encodings."""
    return python(job, "aimet", {"INT8_NODES": job.integers, "FP16_NODES": job.names("FP16")})
