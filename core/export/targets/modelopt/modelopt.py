"""NVIDIA ModelOpt for PyTorch: the ordered `quant_cfg` list (0.44 and later)."""

from __future__ import annotations

from typing import Any

from core.export.targets.contract import ExportRequest
from core.export.targets.script import python

WEIGHTS: dict[str, Any] = {"num_bits": 8, "axis": 0}
ACTIVATIONS: dict[str, Any] = {"num_bits": 8, "axis": None}


def render(request: ExportRequest) -> str:
    """A Python file with `QUANT_CFG`: everything off, then each INT8 module on, and weights alone of
    those by groups; later entries win.
    """
    entries: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
    for name in request.integers:
        entries += [
            {"quantizer_name": f"{name}.weight_quantizer", "cfg": WEIGHTS},
            {"quantizer_name": f"{name}.input_quantizer", "cfg": ACTIVATIONS},
        ]
    for name, kept in request.grouped.items():
        blocks = {"num_bits": kept.bits, "block_sizes": {-1: kept.group, "type": "static"}}
        entries.append({"quantizer_name": f"{name}.weight_quantizer", "cfg": blocks})
    return python(
        request,
        __name__,
        {
            "INT8_MODULES": request.integers,
            "GROUPED_MODULES": list(request.grouped),
            "QUANT_CFG": {"quant_cfg": entries, "algorithm": "max"},
        },
    )
