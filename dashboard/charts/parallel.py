"""Parallel coordinates of strategies, drawn with Plotly: the one place that does.

Lines with markers in place of Plotly's own `parcoords` trace: that one draws hairlines by WebGL,
without names, dashes or shapes, so that colour alone would tell strategies apart.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core.decide.assess.compare import Strategy
from core.decide.assess.parallel import MIDDLE, NARROW_LAYERS, Axis, axes
from core.quantity import RELATIVE, digits
from dashboard.charts import figure
from dashboard.display.loss_labels import LossLabels
from dashboard.display.strategy_marks import MARKS
from dashboard.display.text import COSTS, format_number, format_quantity, plain, short, typeset
from dashboard.display.theme import Theme
from dashboard.session.view import View

HEIGHT = 360
LABEL_CHARACTERS = 16


def draw(view: View, sides: Sequence[Strategy], look: Theme) -> None:
    """The chart, its legend and its data."""
    found, labels = axes(sides, view.study.score_precision), view.loss_labels
    st.plotly_chart(
        _figure(view, sides, found, look),
        key="compare_parallel",
        config={"displayModeBar": False},
        alt=takeaway(view, sides, found),
    )
    kinds = ", ".join(f"{plain(_title(axis.name, view))} {_kinds(labels, axis)}" for axis in found)
    st.caption(
        f"Up is better on every axis: less size, time and loss, more layers in "
        f"{view.study.score_precision}. The ends of an axis are the worst and the best of the strategies "
        f"shown, so a long way may be a small difference. {kinds}."
    )
    figure.offer_data(
        {"strategies": _data(sides, found)}, key="compare_parallel",
        file=f"{view.opened.name}.parallel",
    )  # fmt: skip


def _kinds(labels: LossLabels, axis: Axis) -> str:
    """The kinds of the figures on an axis, each once: a map that was run is measured."""
    return " and ".join(dict.fromkeys(labels.kind(axis.name, q.kind) for q in axis.figures))


def takeaway(view: View, sides: Sequence[Strategy], found: Sequence[Axis]) -> str:
    """What the chart shows, in words: who is best on which axis."""
    best = []
    for axis in found:
        names = [s.name for s, value in zip(sides, axis.amounts, strict=True) if value == axis.best]
        title = _title(axis.name, view)
        best.append(f"{title}: {' and '.join(names) if len(names) < len(sides) else 'all equal'}")
    return f"Parallel coordinates, up is better. Best in {'; '.join(best)}"


def _title(name: str, view: View) -> str:
    """Title of an axis on one line; a metric's name is as its author wrote it."""
    if name == NARROW_LAYERS:
        return f"{view.study.score_precision} layers"
    return COSTS.get(name) or view.loss_labels.mark(name)


def _in_two_lines(title: str) -> str:
    """A title for Plotly, which reads some HTML."""
    return html.escape(title).replace(" ", "<br>", 1)


def _figure(
    view: View, sides: Sequence[Strategy], found: Sequence[Axis], look: Theme
) -> dict[str, Any]:
    """The figure as plain data: Plotly's own classes take long to import."""
    labels = view.loss_labels
    starts = [1 - place / max(len(sides) - 1, 1) for place in range(len(sides))]
    columns = list(range(1, len(found) + 1))
    traces = []
    for i, (mark, side) in enumerate(zip(MARKS, sides, strict=False)):
        name = html.escape(side.name)
        said = [name] + [
            f"{html.escape(_title(axis.name, view))} "
            f"{format_quantity(axis.figures[i])} {labels.kind(axis.name, axis.figures[i].kind)}"
            for axis in found
        ]
        colour = mark.colour(look.mode)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": html.escape(short(side.name, LABEL_CHARACTERS)),
                "x": [0, *columns],
                "y": [starts[i], *(axis.places[i] for axis in found)],
                "text": said,
                "hovertemplate": f"<b>{name}</b><br>%{{text}}<extra></extra>",
                "line": {"color": colour, "width": 3, "dash": mark.dash},
                "marker": {"color": colour, "size": 11, "symbol": mark.symbol},
                "cliponaxis": False,
            }
        )
    quiet = {"color": look.muted, "size": 11}
    ends = [
        {
            "x": x, "y": y, "text": text, "showarrow": False, "yshift": shift, "font": quiet,
        }
        for x, axis in zip(columns, found, strict=True)
        for y, text, shift in _ends(axis)
    ]  # fmt: skip
    return {
        "data": traces,
        "layout": {
            "height": HEIGHT,
            "margin": {"l": 8, "r": 24, "t": 44, "b": 24},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "showlegend": False,
            "hovermode": "closest",
            "dragmode": False,
            "annotations": ends,
            "shapes": [
                {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "layer": "below",
                 "line": {"color": look.muted, "width": 1}}
                for x in columns
            ],
            "xaxis": {
                "tickvals": [0, *columns],
                "ticktext": ["", *(_in_two_lines(_title(axis.name, view)) for axis in found)],
                "side": "top", "fixedrange": True, "zeroline": False, "showline": False,
                "showgrid": False, "range": [-0.1, len(found) + 0.2],
                "tickfont": {"color": look.text, "size": 12}, "tickangle": 0, "ticks": "",
            },
            "yaxis": {
                "tickvals": starts,
                "ticktext": [
                    f"{html.escape(short(s.name, LABEL_CHARACTERS))} {mark.glyph}"
                    for mark, s in zip(MARKS, sides, strict=False)
                ],
                "range": [-0.12, 1.12], "fixedrange": True, "showgrid": False, "zeroline": False,
                "tickfont": {"color": look.text, "size": 12}, "automargin": True, "ticks": "",
            },
        },
    }  # fmt: skip


def _ends(axis: Axis) -> list[tuple[float, str, int]]:
    """Place, text and shift of the numbers at the ends of an axis; one where they are equal."""
    worst, best = (_number(value, axis.unit) for value in (axis.worst, axis.best))
    if axis.best == axis.worst:
        return [(MIDDLE, best, 16)]
    if worst == best:  # the usual decimals hide the difference that the lines show
        worst, best = (typeset(f"{value:.3g}") for value in (axis.worst, axis.best))
    return [(1.0, best, 15), (0.0, worst, -15)]


def _number(value: float, unit: str) -> str:
    text = format_number(value, unit)
    bare = unit in {"layers", "nats", RELATIVE}
    return typeset(digits(value, unit) if bare else text)


def _data(sides: Sequence[Strategy], found: Sequence[Axis]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "strategy": side.name, "figure": axis.name, "value": axis.amounts[i],
                "unit": axis.unit, "kind": axis.figures[i].kind,
            }
            for i, side in enumerate(sides)
            for axis in found
        ]
    )  # fmt: skip
