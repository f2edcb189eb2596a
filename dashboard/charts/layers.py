"""What charts of layers share: their data, colours, shapes and clicks; and the strip of layers.

Colour scales name every precision explicitly: with one of them absent, automatic assignment
would change the colours between two moves of a slider.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.decide.policy.scoring import LEVELS
from core.numerics import precision as registry
from dashboard.charts.template import Spec, filled, named, template
from dashboard.display.text import arrow, counts_in_words, role_title
from dashboard.display.theme import Mode, Theme, by_mode, marker, short
from dashboard.session import state
from dashboard.session.selection import PICK
from dashboard.session.view import View

WIDTHS = ("Bytes", "MACs", "Estimated time", "Layers")
STRIP_HEIGHT = 164
GAPS_UP_TO = 400
"""Beyond this many layers a 1 px gap would be wider than a layer."""
LABEL_PX = 15
"""Narrower segments carry no label of up to two characters."""
CHARACTER_PX = 7
"""What each further character needs."""
MOST_IN_A_ROW = 6
"""Precisions whose names fit side by side above the narrowest chart on a desk."""
IDLE = "no precision"
LAYERS = "layers"
CHANGED = "datum.change != ''"
SELECTED = "datum.selected"


def shown(view: View) -> tuple[str, ...]:
    """Precisions of the study, the widest first."""
    return tuple(name for name in registry.names() if name in view.study.precisions)


def colours(names: tuple[str, ...], look: Theme) -> alt.Scale:
    """Precision to colour, every precision named."""
    return alt.Scale(domain=list(names), range=[look.of(name).fill for name in names])


def shapes(names: tuple[str, ...]) -> alt.Scale:
    """Precision to marker: the second cue."""
    return alt.Scale(domain=list(names), range=[marker(name) for name in names])


def legend(names: tuple[str, ...], **given: Any) -> alt.Legend:
    """Precisions above a chart, in two rows where one would be cut off."""
    columns = -(-len(names) // 2) if len(names) > MOST_IN_A_ROW else alt.Undefined
    return alt.Legend(title=None, orient="top", columns=columns, **given)


def in_words(view: View) -> str:
    """What the charts of layers show, in words: "33 FP16, 16 INT8, 8 without a precision"."""
    chosen = view.now.chosen
    idle = int((chosen.codes < 0).sum())
    said = (counts_in_words(chosen), f"{idle:,} without a precision" if idle else "")
    return ", ".join(filter(None, said)) or "no layer"


def layer_data(view: View) -> pd.DataFrame:
    """One row per layer in execution order."""
    chosen, layers = view.now.chosen, view.study.layers
    directions = {change.layer: change.direction for change in view.changes}
    before = {change.layer: change.before for change in view.changes}
    names = layers.names
    return pd.DataFrame(
        {
            "place": np.arange(1, len(layers) + 1),
            "layer": names,
            "role": [role_title(role) for role in layers.roles],
            "precision": [name or IDLE for name in chosen.assigned],
            "score": chosen.scores,
            "level": [LEVELS[level] for level in chosen.levels],
            "size_kb": view.now.found.layer_bytes / 1e3,
            "change": [arrow(directions.get(name, 0)) for name in names],
            "before": [before.get(name, "") for name in names],
            "selected": np.array(names, dtype=object) == state.selected(view.study),
        }
    )


def pick() -> alt.Parameter:
    """A click on a mark selects its layer by name."""
    return alt.selection_point(name=PICK, fields=["layer"], toggle=False, on="click", empty=False)


def tooltip(*, pinned: bool) -> list[alt.Tooltip]:
    """What a layer says of itself under the pointer."""
    said = [
        alt.Tooltip("layer:N", title="Layer"),
        alt.Tooltip("role:N", title="Role"),
        alt.Tooltip("precision:N", title="Precision"),
        alt.Tooltip("level:N", title="Level"),
        alt.Tooltip("score:Q", title="Score", format=".3f"),
        alt.Tooltip("size_kb:Q", title="Size (kB, exact)", format=",.3f"),
    ]
    return [*said, alt.Tooltip("before:N", title="Pinned")] if pinned else said


def strip(view: View, measure: str, look: Theme) -> Spec:
    """Layers in execution order. Width = share of `measure`, height = bits, colour = precision.

    The ghost behind a bar is the layer in FP32, so with *Bytes* the filled area is the file.
    """
    data = layer_data(view)
    width = widths(view, measure)
    ends = np.cumsum(width)
    data["start"], data["end"], data["middle"] = ends - width, ends, ends - width / 2
    widest = max(registry.get(name).bits for name in view.study.precisions)
    assigned = view.now.chosen.assigned
    data["height"] = [registry.get(name).bits / widest if name else 0.0 for name in assigned]
    data["short"] = [short(name) if name else "" for name in assigned]
    # A layer of no width cannot be seen; drawing it would only cost time.
    data = data[data["end"] > data["start"]]
    spec = _strip(look.mode, shown(view), view.pinned, len(view.study.layers) <= GAPS_UP_TO)
    return filled(spec, layers=data)


def widths(view: View, measure: str) -> NDArray[np.float64]:
    """Width of each layer in the strip: its share of what `measure` names, shape (L,)."""
    layers = view.study.layers
    if measure == "Bytes":
        values = view.study.size_bytes[0].astype(np.float64)  # in the reference: widths stay put
    elif measure == "MACs":
        values = layers.macs.astype(np.float64)
    elif measure == "Estimated time":
        values = view.now.found.layer_ms
    else:
        values = np.ones(len(layers))
    total = values.sum()
    return values / total if total else np.full(len(layers), 1 / max(len(layers), 1))


@lru_cache(maxsize=64)
def _strip(mode: Mode, names: tuple[str, ...], pinned: bool, gaps: bool) -> Spec:
    look = by_mode(mode)
    gap = 1 if gaps else 0
    x = alt.X("start:Q", title=None, axis=None, scale=alt.Scale(domain=[0, 1], nice=False))
    y = alt.Scale(domain=[0, 1.22 if pinned else 1.02], nice=False)
    base = named(LAYERS).encode(x=x, x2="end:Q")
    # The ghost takes clicks and pointer for the whole column: marks of a layer without tooltip
    # and selection let them through.
    ghost = (
        base.mark_rect(color=look.ghost, stroke=look.background, strokeWidth=gap, cursor="pointer")
        .encode(
            y=alt.YDatum(1, axis=None, scale=y), y2=alt.Y2Datum(0), tooltip=tooltip(pinned=pinned)
        )
        .add_params(pick())
    )
    above = legend(names, symbolType="square", direction="horizontal", offset=0)
    bars = base.mark_rect(stroke=look.background, strokeWidth=gap).encode(
        y=alt.Y("height:Q", axis=None, scale=y),
        y2=alt.Y2Datum(0),
        color=alt.Color("precision:N", scale=colours(names, look), legend=above),
    )
    ring = base.mark_rect(filled=False, stroke=look.text, strokeWidth=2).encode(
        y=alt.YDatum(1, axis=None, scale=y), y2=alt.Y2Datum(0)
    )
    parts = [ghost, bars.transform_filter("datum.height > 0"), ring.transform_filter(SELECTED)]
    middle = alt.X("middle:Q", axis=None)
    for name in names:
        label = named(LAYERS).mark_text(
            baseline="bottom", dy=-4, fontSize=12, fontWeight=600, color=look.of(name).text
        )
        room = LABEL_PX + CHARACTER_PX * max(len(short(name)) - 2, 0)
        wide = f"(datum.end - datum.start) * width > {room}"
        parts.append(
            label.encode(x=middle, y=alt.YDatum(0), text="short:N").transform_filter(
                f"datum.precision == '{name}' && {wide}"
            )
        )
    glyphs = named(LAYERS).mark_text(fontSize=11, color=look.text, baseline="middle")
    parts.append(
        glyphs.encode(x=middle, y=alt.YDatum(1.12), text="change:N").transform_filter(CHANGED)
    )
    return template(alt.layer(*parts).properties(height=STRIP_HEIGHT))
