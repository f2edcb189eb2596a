"""The score of each layer in execution order, with the thresholds that sort them."""

from __future__ import annotations

from functools import lru_cache

import altair as alt
import pandas as pd

from core.decide.policy.decision import BY_STRATEGY
from dashboard.charts.layers import (
    CHANGED,
    IDLE,
    LAYERS,
    SELECTED,
    colours,
    layer_data,
    legend,
    pick,
    shapes,
    shown,
    tooltip,
)
from dashboard.charts.template import Spec, filled, named, template
from dashboard.display.theme import Mode, Theme, by_mode
from dashboard.session.selection import BRUSH
from dashboard.session.view import View

HEIGHT = 350
LABEL_ROOM = 0.14
"""Share of the chart kept free on the right for the names of the thresholds."""
MANY = 120
RULES = "rules"
LIVE = (
    f"{BRUSH}.score ? (datum.score >= {BRUSH}.score[0] ? datum.if_high : "
    "datum.score >= datum.medium_at ? datum.if_medium : datum.if_low) : datum.precision"
)
"""A layer's precision while a brush is drawn, in the browser."""


def scores(view: View, look: Theme) -> Spec:
    """Points by precision, a rule per threshold, ▲ ▼ on layers that differ from the pinned map."""
    count = len(view.study.layers)
    policy = view.policy
    at = [policy.high_threshold, policy.medium_threshold]
    if policy.strategy != "thresholds":
        at = []
    rules = pd.DataFrame(
        {"score": pd.Series(at, dtype=float), "label": pd.Series(["HIGH", "MEDIUM"][: len(at)],
                                                                 dtype=str)}
    )  # fmt: skip
    spec = _scores(look.mode, shown(view), view.pinned, count, bool(at))
    return filled(spec, layers=_with_levels(view), rules=rules)


def _with_levels(view: View) -> pd.DataFrame:
    """Layers with the precision that each would have at every level: a brush needs no server to
    recolour them. Layers set by a rule keep theirs.
    """
    data, policy = layer_data(view), view.policy
    free = (view.now.chosen.origin == BY_STRATEGY) & view.study.layers.computes
    for column, precision in (
        ("if_high", policy.high), ("if_medium", policy.medium), ("if_low", policy.low),
    ):  # fmt: skip
        data[column] = data["precision"].where(~free, precision)
    return data.assign(medium_at=policy.medium_threshold)


@lru_cache(maxsize=64)
def _scores(mode: Mode, names: tuple[str, ...], pinned: bool, count: int, brushed: bool) -> Spec:
    look = by_mode(mode)
    end = count + 1 + LABEL_ROOM * count
    x = alt.X(
        "place:Q",
        title="Layer, in execution order",
        scale=alt.Scale(domain=[0, end], nice=False),
        axis=alt.Axis(tickMinStep=1, grid=False, format=",d"),
    )
    y = alt.Y(
        "score:Q",
        title="Score (0 to 1)",
        scale=alt.Scale(domain=[0, 1.06], nice=False),
        axis=alt.Axis(values=[0, 0.2, 0.4, 0.6, 0.8, 1.0], format=".1f"),
    )
    above = legend(names, offset=2)
    base = named(LAYERS)
    idle = base.mark_point(shape="cross", size=30, color=look.muted, filled=True, opacity=0.8)
    size = 80 if count <= MANY else 28
    active = base.mark_point(filled=True, size=size, opacity=0.95, cursor="pointer")
    ring = base.mark_point(shape="circle", size=4 * size, color=look.text, strokeWidth=2)
    glyphs = base.mark_text(fontSize=13, dy=-13, color=look.text)
    parts = [
        idle.encode(x=x, y=y, tooltip=tooltip(pinned=False)).transform_filter(
            f"datum.precision == '{IDLE}'"
        ),
        *_thresholds(look, end),
        active.encode(
            x=x,
            y=y,
            color=alt.Color("now:N", scale=colours(names, look), legend=above),
            shape=alt.Shape("now:N", scale=shapes(names), legend=above),
            tooltip=tooltip(pinned=pinned),
        )
        .transform_filter(f"datum.precision != '{IDLE}'")
        .transform_calculate(now=LIVE if brushed else "datum.precision")
        .add_params(pick(), *([_brush(look)] if brushed else [])),
        ring.encode(x=x, y=y).transform_filter(SELECTED),
        glyphs.encode(x=x, y=y, text="change:N").transform_filter(CHANGED),
    ]
    return template(alt.layer(*parts).properties(height=HEIGHT))


def _brush(look: Theme) -> alt.Parameter:
    """A drag over the scores that are to be HIGH; its lower end is the threshold."""
    return alt.selection_interval(
        name=BRUSH,
        encodings=["y"],
        mark=alt.BrushConfig(fill=look.muted, fillOpacity=0.12, stroke=look.muted),
    )


def _thresholds(look: Theme, end: float) -> list[alt.Chart]:
    rule = named(RULES).mark_rule(color=look.muted, strokeDash=[5, 4]).encode(y="score:Q")
    # With both thresholds close together one name must not cover the other.
    over = named(RULES).mark_text(
        align="right", baseline="bottom", dy=-3, fontSize=11, color=look.muted
    )
    under = named(RULES).mark_text(
        align="right", baseline="top", dy=4, fontSize=11, color=look.muted
    )
    labels = [
        mark.encode(x=alt.XDatum(end), y="score:Q", text="label:N").transform_filter(
            f"datum.label == '{name}'"
        )
        for mark, name in ((over, "HIGH"), (under, "MEDIUM"))
    ]
    return [rule, *labels]
