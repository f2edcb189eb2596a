"""The selected layer, shared by the strip, the score chart, the table and the detail.

A chart keeps its own selection in the browser and tells of it only when it changes. So a chart
that still holds an old selection is drawn under a new key: a click on the same mark counts again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from dashboard.session import state
from dashboard.session.tab import ChartRound

PICK, BRUSH = "pick", "brush"
"""Names of the selections in the charts."""


def chart_key(name: str, layer: str, threshold: float | None = None) -> str:
    """The key of chart `name` while `layer` is selected and `threshold` is the high one."""
    rounds = state.session().rounds
    last = rounds.get(name, ChartRound())
    stale = last.layer not in {"", layer} or last.threshold not in {None, threshold}
    if stale:
        last = ChartRound(last.number + 1)
    rounds[name] = last
    return f"{name}_{last.number}"


def take(name: str) -> None:
    """Take over what was selected in chart `name`. Run as a callback."""
    rounds = state.session().rounds
    last = rounds.get(name, ChartRound())
    found = st.session_state.get(f"{name}_{last.number}", {}).get("selection", {})
    layer, threshold = _layer(found.get(PICK)), _threshold(found.get(BRUSH))
    if threshold is not None and threshold != last.threshold:
        last = replace(last, threshold=threshold)
        low = min(float(st.session_state.get("medium_at", threshold)), threshold)
        state.write({"high_at": threshold, "medium_at": low})
    if layer and layer != last.layer:
        state.select(layer)
    rounds[name] = replace(last, layer=layer)


def _layer(picked: Any) -> str:
    """The layer of a point selection: a list of its fields; empty for a click beside the marks."""
    if isinstance(picked, Sequence) and picked and isinstance(picked[0], Mapping):
        return str(picked[0].get("layer", ""))
    return ""


def _threshold(brushed: Any) -> float | None:
    """The lower end of a brush over scores, on the grid of the slider."""
    ends = brushed.get("score") if isinstance(brushed, Mapping) else None
    if not isinstance(ends, Sequence) or len(ends) != 2:
        return None
    low = min(float(end) for end in ends)
    return round(min(max(low, 0.0), 1.0), 2)
