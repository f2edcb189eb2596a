"""Overview: what this model is, and whether INT8 is a good idea."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from core.decide.advise.advice import considerations, feasibility
from core.decide.advise.document import applies_to
from core.decide.assess.statistics import LevelCount, Statistics, statistics
from core.quantity import UNKNOWN
from dashboard.app_pages.overview import tables
from dashboard.display.text import plain
from dashboard.frame.strip import strip
from dashboard.session import state, studies
from dashboard.session.view import View, current

VERDICTS = {
    "proceed": ("green", ":material/check_circle:", "Proceed"),
    "cautious": ("orange", ":material/warning:", "Cautious"),
    "avoid": ("red", ":material/block:", "Avoid"),
}


def page() -> None:
    """Draw the page for the current view."""
    view = current()
    _hint()
    strip(view, "overview")
    left, right = st.columns([1, 1], gap="medium")
    with left:
        _feasibility(view)
        _recommendations(view)
    with right:
        _considerations(view)
        _levels(view)
    tables.roles(view)
    if applies_to(view.study):
        tables.document(view)
    tables.facts(view)


def _hint() -> None:
    tab = state.session()
    if tab.hint_seen:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(
            ":material/lightbulb: Move a slider in the sidebar: every figure follows. Pin a map to "
            "compare with it."
        )
        if st.button("Got it", type="tertiary", key="_hint"):
            tab.hint_seen = True
            st.rerun()


def _feasibility(view: View) -> None:
    verdict = feasibility(view.study, view.now.chosen, view.now.found)
    colour, icon, word = VERDICTS[verdict.feasibility]
    with st.container(border=True, gap="xsmall"):
        st.markdown("**Is this map a good idea?**")
        st.markdown(f"### :{colour}[{icon} {word}]")
        st.markdown("\n".join(f"- {plain(reason)}" for reason in verdict.reasons))


def _recommendations(view: View) -> None:
    with st.container(border=True, gap="xsmall"):
        st.markdown("**Recommended strategy by use**")
        for found in studies.recommended(view.opened, view.policy):
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(
                    f"{found.use.capitalize()}: **{found.strategy}**  \n:small[{found.why}]",
                    width="stretch",
                )
                st.button(
                    "Load",
                    on_click=state.load,
                    args=(found.policy, view.study),
                    key=f"_load_{found.use}",
                    help=f"Put {found.strategy} into the controls. Undo brings yours back.",
                )


def _considerations(view: View) -> None:
    with st.container(border=True, gap="xsmall"):
        st.markdown("**Key considerations**")
        said = considerations(view.study, view.now.chosen)
        st.markdown("\n".join(f"- {plain(sentence)}" for sentence in said) or UNKNOWN)


def _levels(view: View) -> None:
    found = statistics(view.now.chosen)
    with st.container(border=True, gap="xsmall"):
        st.markdown("**Sensitivity levels**")
        st.dataframe(
            _level_frame(found),
            hide_index=True,
            alt="Layers by sensitivity level, over all layers and over those that compute",
        )
        idle = found.layers - found.computing_layers
        st.caption(
            f"Quantizable (MEDIUM or LOW): {_percent(found.quantizable_pct)} of all layers, "
            f"{_percent(found.computing_quantizable_pct)} of those that compute."
            + (f" {idle:,} do nothing at inference; counting them flatters the share." if idle
               else "")
        )  # fmt: skip


def _level_frame(found: Statistics) -> pd.DataFrame:
    def text(count: LevelCount) -> str:
        return f"{count.layers:,} ({_percent(count.share_pct)})"

    return pd.DataFrame(
        {
            "Level": [count.level for count in found.levels],
            f"All layers ({found.layers:,})": [text(c) for c in found.levels],
            f"Those that compute ({found.computing_layers:,})": [
                text(c) for c in found.computing_levels
            ],
        }
    )


def _percent(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.1f} %"


page()
