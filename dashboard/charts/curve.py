"""Projected loss against size as the high threshold moves over its range."""

from __future__ import annotations

from functools import lru_cache

import altair as alt
import pandas as pd
import streamlit as st

from core.decide.assess.curves import CurvePoint
from core.quantity import Quantity
from dashboard.charts.template import Spec, filled, named, template
from dashboard.display.loss_labels import LossLabels, axis_format
from dashboard.display.text import format_quantity, plain
from dashboard.display.theme import Mode, Theme, by_mode
from dashboard.session.view import View

HEIGHT = 306
CHOICE = "curve_loss"
POINTS, MAPS = "points", "maps"
FIGURES = (
    alt.Tooltip("size_said:N", title="Size (MB, exact)"),
    alt.Tooltip("loss_said:N", title="Loss, with its range"),
)
"""Figures under the pointer, written as everywhere."""


def choose_loss(labels: LossLabels) -> str:
    """The measure of loss that charts of the page show; one choice for all pages."""
    usual = labels.figures.divergence
    offered = sorted(labels.charted, key=lambda name: name != usual)
    if st.session_state.get(CHOICE, usual) not in offered:  # kept from a model with other figures
        st.session_state[CHOICE] = usual
    measure = st.segmented_control(
        "Loss",
        offered,
        default=usual,
        format_func=lambda name: plain(labels.chooser(name)),
        key=CHOICE,
        label_visibility="collapsed",
        required=True,
        persist_state="session",
    )
    return measure or usual


def curve(points: tuple[CurvePoint, ...], view: View, measure: str, look: Theme) -> Spec | None:
    """The sweep with its 90 % band, the current map filled and the pinned one hollow.

    None where nothing is projected.
    """
    rows = [
        {
            "size_mb": _mb(point.totals["size_bytes"]),
            "loss": point.totals[measure].value,
            "low": point.totals[measure].low,
            "high": point.totals[measure].high,
            "threshold": point.high_threshold,
            "layers": point.high_layers,
            "size_said": format_quantity(point.totals["size_bytes"]),
            "loss_said": view.loss_labels.figure(measure, point.totals[measure]),
        }
        for point in points
        if point.totals[measure].value is not None
    ]
    if not rows:
        return None
    sides = [("current", view.now), *([("pinned", view.base)] if view.pinned else [])]
    maps = [
        {
            "size_mb": _mb(side.found.totals["size_bytes"]),
            "loss": side.found.totals[measure].value,
            "map": name,
            "size_said": format_quantity(side.found.totals["size_bytes"]),
            "loss_said": view.loss_labels.figure(measure, side.found.totals[measure]),
        }
        for name, side in sides
        if side.found.totals[measure].value is not None
    ]
    return filled(
        _curve(look.mode, measure, view.loss_labels.axis(measure), view.pinned),
        points=pd.DataFrame(rows),
        maps=pd.DataFrame(maps, columns=["size_mb", "loss", "map", "size_said", "loss_said"]),
    )


def _mb(size: Quantity) -> float:
    return (size.value or 0.0) / 1e6


@lru_cache(maxsize=16)
def _curve(mode: Mode, measure: str, title: str, pinned: bool) -> Spec:
    look = by_mode(mode)
    axis = alt.Axis(tickCount=5, format=axis_format(measure))
    x = alt.X(
        "size_mb:Q",
        title="Size (MB, exact)",
        scale=alt.Scale(zero=False, nice=True),
        axis=alt.Axis(labelFlush=True, tickCount=6, format=".4~g"),
    )
    y = alt.Y("loss:Q", title=title, axis=axis)
    base = named(POINTS).encode(x=x)
    said = [
        alt.Tooltip("threshold:Q", title="HIGH from score", format=".3f"),
        alt.Tooltip("layers:Q", title="HIGH layers"),
        *FIGURES,
    ]
    band = alt.Y("low:Q", title=title, axis=axis)
    return template(
        alt.layer(
            base.mark_area(opacity=0.16, color=look.muted).encode(y=band, y2="high:Q"),
            base.mark_line(color=look.muted, strokeWidth=2).encode(y=y, order="threshold:Q"),
            base.mark_point(filled=True, size=26, color=look.muted).encode(y=y, tooltip=said),
            *_maps(look, pinned),
        ).properties(height=HEIGHT)
    )


def _maps(look: Theme, pinned: bool) -> list[alt.Chart]:
    drawn = []
    kinds = [("pinned", False, 18), ("current", True, -15)]
    for name, filling, shift in kinds if pinned else kinds[1:]:
        base = named(MAPS).encode(x="size_mb:Q", y="loss:Q")
        only = f"datum.map == '{name}'"
        drawn += [
            base.mark_point(
                size=190, filled=filling, shape="diamond", strokeWidth=2, color=look.text, opacity=1
            )
            .encode(tooltip=[alt.Tooltip("map:N", title="Map"), *FIGURES])
            .transform_filter(only),
            base.mark_text(dy=shift, fontSize=11, color=look.text)
            .encode(text="map:N")
            .transform_filter(only),
        ]
    return drawn
