"""optimum-quanto: the quantization map that `requantize` reads, as JSON."""

from __future__ import annotations

import json

from core.export.targets.contract import ExportRequest


def render(request: ExportRequest) -> str:
    """`{module: {"weights": "qint8", "activations": "qint8"}}` of every INT8 module, and of one with
    weights by groups `{"weights": "qint4", "activations": "none"}`.

    The form is what `optimum.quanto.quantization_map` returns, which has no place for comments.
    """
    integers, few = set(request.integers), request.grouped
    entries = {
        name: {"weights": "qint8", "activations": "qint8"}
        if name in integers
        else {"weights": f"qint{few[name].bits}", "activations": "none"}
        for line in request.lines
        for name in line.names
        if name in integers or name in few
    }
    return json.dumps(entries, indent=2) + "\n"
