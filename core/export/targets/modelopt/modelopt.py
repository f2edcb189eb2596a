"""NVIDIA ModelOpt for PyTorch: the ordered `quant_cfg` list (0.44 and later)."""

from __future__ import annotations

from typing import Any

from core.export.targets.contract import ExportRequest
from core.export.targets.script import python

INTEGERS, E4M3 = 8, (4, 3)


def render(request: ExportRequest) -> str:
    """A Python file with `QUANT_CFG`: everything off, then each INT8 and FP8 module on, with a scale for
    each output channel of weights and one for activations, and weights alone of those by groups; later
    entries win.
    """
    entries: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
    bits = dict.fromkeys(request.integers, INTEGERS) | dict.fromkeys(request.scaled, E4M3)
    entries += [
        {"quantizer_name": f"{name}.{what}_quantizer", "cfg": {"num_bits": kept, "axis": axis}}
        for name, kept in bits.items()
        for what, axis in (("weight", 0), ("input", None))
    ]
    for name, kept in request.grouped.items():
        blocks = {"num_bits": kept.bits, "block_sizes": {-1: kept.group, "type": "static"}}
        entries.append({"quantizer_name": f"{name}.weight_quantizer", "cfg": blocks})
    return python(
        request,
        __name__,
        {
            "INT8_MODULES": request.integers,
            "FP8_MODULES": request.scaled,
            "GROUPED_MODULES": list(request.grouped),
            "QUANT_CFG": {"quant_cfg": entries, "algorithm": "max"},
        },
    )
