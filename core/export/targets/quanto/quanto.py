"""optimum-quanto: the quantization map that `requantize` reads, as JSON."""

from __future__ import annotations

import json

from core.export.targets.contract import ExportRequest


def render(request: ExportRequest) -> str:
    """`{module: {"weights": "qint8", "activations": "qint8"}}` of every INT8 module.

    The form is what `optimum.quanto.quantization_map` returns, which has no place for comments.
    """
    entry = {"weights": "qint8", "activations": "qint8"}
    return json.dumps(dict.fromkeys(request.integers, entry), indent=2) + "\n"
