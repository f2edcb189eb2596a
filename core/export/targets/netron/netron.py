"""Netron: an attachment with scores, levels and precisions for its sidebar."""

from __future__ import annotations

import json

from core.decide.policy.scoring import LEVELS
from core.export.targets.contract import ExportRequest
from core.export.targets.overlay import places


def render(request: ExportRequest) -> str:
    """The JSON that Netron opens as an attachment (`metadata.Attachment` in its view.js)."""
    chosen = request.chosen
    metrics, metadata = [], []
    for i, name in places(request):
        node = {"kind": "node", "target": name}
        metrics.append({**node, "name": "score", "value": round(float(chosen.scores[i]), 6)})
        metadata += [
            {**node, "name": "level", "value": LEVELS[chosen.levels[i]]},
            {**node, "name": "precision", "value": chosen.assigned[i] or "none"},
            {**node, "name": "layer", "value": request.study.layers.names[i]},
        ]
    content = {"signature": "netron:attachment", "metrics": metrics, "metadata": metadata}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
