"""Tune: move it and see what flips."""

from __future__ import annotations

import streamlit as st

from dashboard import agreement_view, curve_chart, figure, layer_table, score_chart, studies, theme
from dashboard.charts import in_words
from dashboard.strip_view import empty, strip
from dashboard.tables import format_quantity
from dashboard.view import View, current


def page() -> None:
    """Draw the page for the current view."""
    view = current()
    if not len(view.study.layers):
        empty(view)
        return
    strip(view, "tune")
    left, right = st.columns([3, 2], gap="small")
    with left, st.container(border=True, gap="xsmall", height="stretch"):
        _scores(view)
    with right, st.container(border=True, gap="xsmall", height="stretch"):
        _curve(view)
    layer_table.draw(view)
    agreement_view.draw(view)


def _scores(view: View) -> None:
    st.markdown("**Score of each layer**")
    figure.draw(
        score_chart.scores(view, theme.current()),
        key="scores_chart",
        alt=f"Score of each layer in execution order, with the thresholds: {in_words(view)}",
        file=f"{view.opened.name}.scores",
    )


def _curve(view: View) -> None:
    st.markdown("**Projected loss against size, over all thresholds**")
    measure = curve_chart.choose_loss()
    points = studies.curve(view.opened, view.policy)
    drawn = curve_chart.curve(points, view, measure, theme.current())
    if drawn is None:
        st.info("n/a: nothing was measured, so no loss is projected.", icon=":material/info:")
    else:
        figure.draw(
            drawn,
            key="curve_chart",
            alt=f"{curve_chart.LOSS_TITLES[measure or 'kl']} against size for {len(points)} thresholds; "
            f"the current map takes {format_quantity(view.now.found.totals['size_bytes'])}",
            file=f"{view.opened.name}.curve",
        )


page()
