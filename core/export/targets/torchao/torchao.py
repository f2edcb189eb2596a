"""torchao: an `FqnToConfig` with one entry for each INT8 module, and tensors with measured bits."""

from __future__ import annotations

from core.export.targets.contract import ExportRequest
from core.export.targets.script import python
from core.numerics import precision as registry
from core.numerics import quantizers


def render(request: ExportRequest) -> str:
    """A Python file whose `quantize` applies the map. Exact names beat patterns in torchao, so
    the list is of names alone.
    """
    return python(
        request,
        __name__,
        {
            "INT8_MODULES": request.integers,
            "DYNAMIC_MODULES": [name for names in request.dynamic.values() for name in names],
            "GROUPED_MODULES": {
                name: (kept.bits, kept.group) for name, kept in request.grouped.items()
            },
            "OWN_GRID": request.study.analysis.quantizer == quantizers.TORCHAO.name,
            "FLOAT_DTYPE": registry.get(request.common).float_dtype,
        },
    )
