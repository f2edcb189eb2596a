"""optimum-quanto: the quantization map that `requantize` reads, as JSON."""

from __future__ import annotations

import json

from core.export.targets.contract import ExportRequest


def render(request: ExportRequest) -> str:
    """`{module: {"weights": "qint8", "activations": "qint8"}}` of every INT8 module, `qfloat8_e4m3fn` of
    one in FP8, and of one with weights by groups `{"weights": "qint4", "activations": "none"}`.

    The form is what `optimum.quanto.quantization_map` returns, which has no place for comments.
    """
    kinds = dict.fromkeys(request.integers, ("qint8", "qint8"))
    kinds |= dict.fromkeys(request.scaled, ("qfloat8_e4m3fn", "qfloat8_e4m3fn"))
    kinds |= {name: (f"qint{kept.bits}", "none") for name, kept in request.grouped.items()}
    entries = {
        name: {"weights": kinds[name][0], "activations": kinds[name][1]}
        for line in request.lines
        for name in line.names
        if name in kinds
    }
    return json.dumps(entries, indent=2) + "\n"
