"""Apple Core ML: a script that converts with a float format for each module and INT8 weights."""

from __future__ import annotations

from core.export.targets.contract import ExportRequest
from core.export.targets.script import python


def render(request: ExportRequest) -> str:
    """A Python file whose `convert` applies the map."""
    return python(
        request,
        __name__,
        {
            "INT8_MODULES": request.integers,
            "GROUPED_MODULES": {n: (k.bits, k.group) for n, k in request.grouped.items()},
            "FP16_MODULES": request.names("FP16"),
            "FP32_MODULES": request.names("FP32"),
            "HALF": any(line.got == "FP16" for line in request.lines),
        },
    )
