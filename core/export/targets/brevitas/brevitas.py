"""Brevitas: a script around `layerwise_quantize`."""

from __future__ import annotations

from core.export.targets.contract import ExportRequest
from core.export.targets.script import python


def render(request: ExportRequest) -> str:
    """A Python file whose `quantize` applies the map."""
    return python(request, __name__, {"INT8_MODULES": request.integers})
