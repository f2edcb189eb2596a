"""Tune: move it and see what flips."""

from __future__ import annotations

from functools import partial

import streamlit as st

from dashboard.app_pages.tune import agreement, classes, frontier, layer_detail, layer_table
from dashboard.charts import curve, figure, scores
from dashboard.charts.layers import in_words
from dashboard.display import theme
from dashboard.display.text import format_quantity
from dashboard.frame.strip import strip
from dashboard.session import selection, state, studies
from dashboard.session.view import View, current

CHART_PX = 420
"""Narrower charts are put below each other."""


def page() -> None:
    """Draw the page for the current view."""
    view = current()
    strip(view, "tune")
    with st.grid(2, min_column_width=CHART_PX, gap="small"):
        with st.container(border=True, gap="xsmall", height="stretch"):
            _scores(view)
        with st.container(border=True, gap="xsmall", height="stretch"):
            _curve(view)
    frontier.draw(view)
    layer_detail.draw(view)
    layer_table.draw(view)
    classes.draw(view)
    agreement.draw(view)


def _scores(view: View) -> None:
    layer = state.selected(view.study)
    line = figure.header("Score of each layer")
    figure.draw(
        scores.scores(view, theme.current()),
        key=selection.chart_key("scores", layer, view.policy.high_threshold),
        on_select=partial(selection.take, "scores"),
        alt=f"Score of each layer in execution order, with the thresholds: {in_words(view)}",
        file=f"{view.opened.name}.scores",
        header=line,
    )
    if view.policy.strategy == "thresholds":
        st.caption("Click a layer for its detail; drag over the scores that are to be HIGH.")


def _curve(view: View) -> None:
    line = figure.header("Projected loss against size")
    labels = view.loss_labels
    measure = curve.choose_loss(labels)
    points = studies.curve(view.opened, view.policy)
    drawn = curve.curve(points, view, measure, theme.current())
    if drawn is None:
        st.info("n/a: nothing was measured, so no loss is projected.", icon=":material/info:")
    else:
        figure.draw(
            drawn,
            key="curve_chart",
            alt=f"{labels.chooser(measure)} against size for {len(points)} thresholds; "
            f"the current map takes {format_quantity(view.now.found.totals['size_bytes'])}",
            file=f"{view.opened.name}.curve",
            header=line,
        )


page()
