"""Layers that share one precision, said where a layer is shown."""

from __future__ import annotations

import streamlit as st

from dashboard.display.text import plain
from dashboard.session.view import View

MOST_NAMED = 8


def line(view: View, i: int) -> None:
    """With which layers layer `i` moves together, and whether a rule took them apart."""
    others = view.study.layers.beside(i)
    if not others:
        return
    named = plain(", ".join(others[:MOST_NAMED]))
    more = f" and {len(others) - MOST_NAMED:,} more" if len(others) > MOST_NAMED else ""
    st.markdown(f":material/link: Moves together with {named}{more}: they share one precision.")
    if any(i in group for group in view.now.chosen.split_groups):
        st.markdown(
            ":orange[:material/link_off:] A pin or an override splits this group; a runtime that "
            "needs one precision for it cannot run this map."
        )
