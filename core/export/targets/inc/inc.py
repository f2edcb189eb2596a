"""Intel Neural Compressor 3.x for PyTorch: a script with `set_local`."""

from __future__ import annotations

from core.export.targets.contract import ExportRequest
from core.export.targets.script import python


def render(request: ExportRequest) -> str:
    """A Python file whose `quantize` applies the map."""
    return python(
        request,
        __name__,
        {
            "INT8_MODULES": request.integers,
            "GROUPED_MODULES": {n: (kept.bits, kept.group) for n, kept in request.grouped.items()},
        },
    )
