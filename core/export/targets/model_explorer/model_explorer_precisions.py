"""Model Explorer: node data with each layer's precision."""

from __future__ import annotations

import json

from core.export.targets.contract import ExportRequest
from core.export.targets.overlay import places
from core.numerics import precision_marks


def render(request: ExportRequest) -> str:
    """`GraphNodeData` as JSON with a precision by node, in the colours of pages and reports."""
    content = {
        "name": "Quantscape: precision",
        "results": {
            name: {"value": asked, **_colours(asked)}
            for i, name in places(request)
            if (asked := request.chosen.assigned[i]) is not None
        },
        "showExpandedSummaryOnGroupNode": True,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _colours(precision: str) -> dict[str, str]:
    fill = precision_marks.of(precision).light
    return {"bgColor": fill, "textColor": precision_marks.readable_on(fill)}
