"""OpenVINO through NNCF: a script with an `IgnoredScope` that is validated."""

from __future__ import annotations

from core.export.targets.contract import ExportRequest
from core.export.targets.script import python


def render(request: ExportRequest) -> str:
    """A Python script that quantizes the chosen nodes and ignores every other operation."""
    return python(
        request,
        __name__,
        {"INT8_NODES": request.integers, "COMPRESS_TO_FP16": request.common == "FP16"},
    )
