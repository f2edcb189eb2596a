"""The frontier of loss against size or latency, with the maps on screen and who beats them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import altair as alt
import pandas as pd

from core.decide.assess.compare import TOTAL_OF, Cost
from core.decide.assess.frontier import Frontier, FrontierPoint
from core.quantity import Quantity
from dashboard.charts.labels import spots, written
from dashboard.charts.template import Spec, filled, named, template
from dashboard.display.loss_labels import LossLabels, axis_format
from dashboard.display.text import format_quantity
from dashboard.display.theme import Mode, Theme, by_mode

HEIGHT = 300
PICKED = "point"
"""Name of the selection in the chart: a point by its number, counted from 1."""
POINTS, MAPS = "frontier", "maps"
AXES: dict[Cost, str] = {"size": "Size (MB, exact)", "latency": "Latency (ms, estimated)"}
DIMMED = 0.4


@dataclass(frozen=True, slots=True)
class Shown:
    """A map in the chart: what it is called, with its totals."""

    name: str
    totals: dict[str, Quantity]


def amount(totals: dict[str, Quantity], axis: Cost) -> float:
    """The cost of a map in the unit of the chart."""
    value = totals[TOTAL_OF[axis]].value or 0.0
    return value / 1e6 if axis == "size" else value


def called(point: FrontierPoint, axis: Cost) -> str:
    """What a point is called where it beats another map."""
    return f"the frontier at {format_quantity(point.totals[TOTAL_OF[axis]])}"


def chart(
    found: Frontier, maps: Sequence[Shown], measure: str, labels: LossLabels, look: Theme
) -> Spec | None:
    """The chart; None where nothing is projected."""
    rows = [
        {
            "point": number,
            "cost": amount(p.totals, found.axis),
            "loss": p.totals[measure].value,
            "low": p.totals[measure].low,
            "high": p.totals[measure].high,
            "cost_said": format_quantity(p.totals[TOTAL_OF[found.axis]]),
            "said": labels.figure(measure, p.totals[measure]),
        }
        for number, p in enumerate(found.points, 1)
        if p.totals[measure].value is not None
    ]
    if not rows:
        return None
    marks: list[dict[str, Any]] = []
    for shown in maps:
        value = shown.totals[measure].value
        if value is None:
            continue
        beaten = found.dominating(shown.totals)
        marks.append(
            {
                "map": shown.name,
                "cost": amount(shown.totals, found.axis),
                "loss": value,
                "cost_said": format_quantity(shown.totals[TOTAL_OF[found.axis]]),
                "said": labels.figure(measure, shown.totals[measure]),
                "opacity": 1.0 if beaten is None else DIMMED,
                "dominated_by": "no one" if beaten is None else called(beaten, found.axis),
            }
        )
    places: dict[tuple[object, object], list[dict[str, Any]]] = {}
    for mark in marks:
        places.setdefault((mark["cost"], mark["loss"]), []).append(mark)
    for here in places.values():  # one label for maps in one place, or names cover each other
        label = " = ".join(str(mark["map"]) for mark in here)
        for mark in here:
            mark["label"] = label if mark is here[0] else ""
    x, y, names = ([mark[key] for mark in marks] for key in ("cost", "loss", "label"))
    for mark, spot in zip(
        marks, spots(x, y, names, [amount(p.totals, found.axis) for p in found.points]), strict=True
    ):
        mark |= {"align": spot.align, "dy": spot.dy}
    columns = [
        "map",
        "label",
        "align",
        "dy",
        "cost",
        "loss",
        "cost_said",
        "said",
        "opacity",
        "dominated_by",
    ]
    return filled(
        _frontier(look.mode, found.axis, measure, labels.axis(measure)),
        frontier=pd.DataFrame(rows),
        maps=pd.DataFrame(marks, columns=columns),
    )


@lru_cache(maxsize=16)
def _frontier(mode: Mode, axis: Cost, measure: str, title: str) -> Spec:
    look = by_mode(mode)
    x = alt.X(
        "cost:Q",
        title=AXES[axis],
        scale=alt.Scale(zero=False, nice=True),
        axis=alt.Axis(labelFlush=True, tickCount=6, format=".4~g"),
    )
    y_axis = alt.Axis(tickCount=5, format=axis_format(measure))
    y = alt.Y("loss:Q", title=title, axis=y_axis)
    base = named(POINTS).encode(x=x)
    pick = alt.selection_point(name=PICKED, fields=["point"], toggle=False, on="click", empty=False)
    said = [
        alt.Tooltip("cost_said:N", title=AXES[axis]),
        alt.Tooltip("said:N", title="Loss, with its range"),
    ]
    whose = [alt.Tooltip("map:N", title="Map"), *said,
             alt.Tooltip("dominated_by:N", title="Dominated by")]  # fmt: skip
    marks = named(MAPS).encode(
        x=x, y=y, opacity=alt.Opacity("opacity:Q", scale=None, legend=None), tooltip=whose
    )
    return template(
        alt.layer(
            base.mark_area(opacity=0.16, color=look.muted, interpolate="step-after").encode(
                y=alt.Y("low:Q", title=title, axis=y_axis), y2="high:Q"
            ),
            base.mark_line(color=look.muted, strokeWidth=2, interpolate="step-after").encode(
                y=y, order="cost:Q"
            ),
            base.mark_point(filled=True, size=90, color=look.text, opacity=1, cursor="pointer")
            .encode(y=y, tooltip=[alt.Tooltip("point:Q", title="Point"), *said])
            .add_params(pick),
            marks.mark_point(
                shape="diamond", size=190, strokeWidth=2, filled=False, color=look.text
            ),
            written(marks, color=look.text),
        ).properties(height=HEIGHT)
    )
