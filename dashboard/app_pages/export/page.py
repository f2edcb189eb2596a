"""Export: give me the file, and take mine."""

from __future__ import annotations

import streamlit as st

from dashboard.app_pages.export import imports, map_file, tool_file
from dashboard.display.boundary import boundary
from dashboard.display.text import plain
from dashboard.pages import PAGES
from dashboard.session import measure_form, strategies
from dashboard.session.strategies import CURRENT
from dashboard.session.view import Side, View, current

CHOICE = "export_strategy"
COLUMN_PX = 400
"""Narrower, the two columns become one."""


def page() -> None:
    """Draw the page for the current view."""
    view = current()
    if measure_form.was_filled():
        st.switch_page(PAGES["measure"].script, query_params={})
    if not len(view.study.layers):
        st.info(
            f"{plain(view.study.analysis.title)} has no layer that can be quantized: every file "
            "below holds an empty map.",
            icon=":material/layers_clear:",
        )
    side = _choose(view)
    grid = st.grid(2, min_column_width=COLUMN_PX, gap="small")
    with grid.container(border=True, gap="small"), boundary("the file"):
        map_file.draw(view, side)
    with grid.container(border=True, gap="small"), boundary("the checklist"):
        map_file.checklist(view, side)
    with grid.container(border=True, gap="small"), boundary("the file for a tool"):
        tool_file.draw(view, side)
    with grid.container(border=True, gap="small"), boundary("the bundle"):
        tool_file.bundle(view, side)
    with grid.container(border=True, gap="small"), boundary("the import"):
        imports.draw(view)
    with grid.container(border=True, gap="small"), boundary("the session"):
        imports.session(view)


def _choose(view: View) -> Side:
    """The map to export. One that is gone by now gives way to the current map."""
    offers = strategies.offers(view)
    gone = st.session_state.get(CHOICE, CURRENT)
    if gone not in offers:
        st.session_state[CHOICE] = CURRENT
    name = st.selectbox(
        "Strategy to export",
        list(offers),
        key=CHOICE,
        persist_state="session",
        width=360,
        help="The map on screen, the pinned one, your own, and those that are always there.",
    )
    if gone not in offers:
        st.caption(f"{plain(str(gone))} is no longer there; this is the current map.")
    return strategies.side(view, offers[name or CURRENT])


page()
