"""The data behind the figures of the HTML report, as JSON that can stand inside a page."""

from __future__ import annotations

from typing import Any

import msgspec

from core.decide.assess.compare import COSTS
from core.decide.assess.loss import loss_figures
from core.decide.policy.scoring import LEVELS
from core.export.map import words
from core.export.map.precision_map import ORIGINS
from core.export.report.material import THIS_MAP, Material
from core.numerics import precision_marks
from core.quantity import Quantity

LAYER_FIELDS = (
    "name", "role", "params", "macs", "score", "level", "precision", "document_precision",
    "set_by", "size_bytes", "latency_ms", "state", "reason",
)  # fmt: skip
"""Columns of the layers, named as in `precision_map.json`."""

COST_FIGURES = ("size_bytes", "latency_ms")


def figure_data(given: Material) -> dict[str, Any]:
    """Layers, thresholds and strategies as plain lists and dicts; unknown figures are None."""
    chosen, found = given.chosen, given.found
    judged, titles = loss_figures(found.totals), words.figures(given.study.analysis)
    figures = (*COST_FIGURES, judged.loss, judged.divergence)
    return {
        "judged": [
            {"name": name, "title": titles[name], "unit": found.totals[name].unit}
            for name in (judged.loss, judged.divergence)
        ],
        "precisions": [
            {"name": name, "short": mark.short, "marker": mark.marker}
            for name in given.study.precisions
            for mark in (precision_marks.of(name),)
        ],
        "outlines": precision_marks.outlines(),
        "thresholds": {"high": given.policy.high_threshold, "medium": given.policy.medium_threshold},
        "score_kind": given.score_kind,
        "layer_fields": LAYER_FIELDS,
        "layers": [
            [
                layer.name, words.role(layer.role), layer.params, layer.macs,
                float(chosen.scores[i]), LEVELS[chosen.levels[i]], chosen.assigned[i],
                chosen.document_precision(i), ORIGINS[chosen.origin[i]],
                int(found.layer_bytes[i]), float(found.layer_ms[i]), layer.state, chosen.reason(i),
            ]
            for i, layer in enumerate(given.study.layers)
        ],
        "strategies": [
            {
                "name": s.name,
                "own": s.name == THIS_MAP,
                **{name: _figure(given, name, s.outcome.comparable[name]) for name in figures},
                "beaten": {cost: given.comparison.beaten(s.name)[cost] for cost in COSTS},
            }
            for s in given.strategies
        ],
    }  # fmt: skip


def _figure(given: Material, name: str, found: Quantity) -> dict[str, Any]:
    return {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "unit": found.unit,
        "kind": found.kind,
        "text": words.total(given.study.analysis, name, found),
    }


def script_json(data: dict[str, Any]) -> str:
    """`data` as JSON that cannot end the script element it stands in, nor begin a comment."""
    text = msgspec.json.encode(data).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
