"""What can be done to the policy as a whole: undo, redo, pin, reset, share."""

from __future__ import annotations

import streamlit as st

from core.decide.study import Study
from dashboard.session import links, state
from dashboard.session.control import Control


def draw(known: dict[str, Control], study: Study) -> None:
    """The buttons and the link."""
    tab = state.session()
    with st.grid(2, min_column_width=100, gap="xsmall"):
        st.button(
            "Undo",
            on_click=state.move,
            args=(-1,),
            shortcut="Alt+Z",
            disabled=tab.place <= 0,
            key="_undo",
            width="stretch",
            help="Take the last change back.",
        )
        st.button(
            "Redo",
            on_click=state.move,
            args=(1,),
            shortcut="Alt+Y",
            disabled=tab.place >= len(tab.history) - 1,
            key="_redo",
            width="stretch",
            help="Make it again.",
        )
        st.button(
            "Pin",
            on_click=state.pin,
            shortcut="Alt+P",
            key="_pin",
            width="stretch",
            help="Hold later changes against the current map. This browser keeps it over a reload.",
        )
        st.button(
            "Reset",
            on_click=state.reset,
            args=(study,),
            key="_reset",
            width="stretch",
            help="The document's method again; Undo brings yours back.",
        )
    with st.popover("Copy link", icon=":material/link:", width="stretch"):
        st.caption("Opens exactly this policy in any browser that reaches this server.")
        st.code(
            links.write(state.values_of(known), known, tab.model), language=None, wrap_lines=True
        )
    pinned = tab.pinned.get(tab.model)
    if pinned is not None:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f"Pinned: {state.describe(pinned)}")
            st.button("Unpin", on_click=state.unpin, type="tertiary", key="_unpin")
