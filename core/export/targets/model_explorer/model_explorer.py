"""Model Explorer: node data with scores and the policy's thresholds."""

from __future__ import annotations

import json

from core.export.targets.contract import ExportRequest
from core.export.targets.overlay import COLOURS, places


def render(request: ExportRequest) -> str:
    """`GraphNodeData` as JSON (model_explorer/node_data_builder.py): scores by node."""
    policy, scores = request.chosen.policy, request.chosen.scores
    bounds = (policy.medium_threshold, policy.high_threshold, 1.0)
    colours = (COLOURS[1], COLOURS[2], COLOURS[3])
    content = {
        "name": "Quantscape: sensitivity score",
        "results": {name: {"value": round(float(scores[i]), 6)} for i, name in places(request)},
        "thresholds": [
            {"value": bound, "bgColor": colour}
            for bound, colour in zip(bounds, colours, strict=True)
        ],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
