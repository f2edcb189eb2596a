"""Model Explorer: node data with each layer's precision."""

from __future__ import annotations

import json

from core.export.targets.contract import ExportRequest
from core.export.targets.overlay import COLOURS, places


def render(request: ExportRequest) -> str:
    """`GraphNodeData` as JSON with a precision by node, coloured from wide to narrow."""
    given = request.study.precisions
    step = max(len(given) - 1, 1)
    colour = {p: COLOURS[round(i * (len(COLOURS) - 1) / step)] for i, p in enumerate(given)}
    content = {
        "name": "Quantscape: precision",
        "results": {
            name: {"value": asked, "bgColor": colour[asked]}
            for i, name in places(request)
            if (asked := request.chosen.assigned[i]) is not None
        },
        "showExpandedSummaryOnGroupNode": True,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
