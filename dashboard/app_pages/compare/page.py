"""Compare: which strategy to ship."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from core.decide.assess.compare import SAME_MAP, Strategy, compare
from core.decide.policy.names import MAX_NAME
from dashboard.app_pages.compare import actions, cards, table, trade_off
from dashboard.charts import parallel
from dashboard.display import theme
from dashboard.display.strategy_marks import MOST
from dashboard.display.text import plain
from dashboard.pages import PAGES
from dashboard.session import problems, state, strategies
from dashboard.session.strategies import Offer
from dashboard.session.view import View, current


def page() -> None:
    """Draw the page for the current view."""
    view = current()
    if actions.loaded():  # no parameters here: those of the policy are bound, and follow
        st.switch_page(PAGES["tune"].script, query_params={})
    offers = strategies.offers(view)
    names = _choice(view, offers)
    if not names:
        _nothing_chosen()
        _gone()
        return
    sides = [
        Strategy(name, side.chosen, side.found)
        for name in names
        for side in [strategies.side(view, offers[name])]
    ]
    found = compare(sides, actions.reference(names))
    cards.draw(view, offers, sides, found)
    _gone()
    if len(sides) == 1:
        st.info(
            f"Only {plain(names[0])} is shown. Choose another strategy above to compare it with.",
            icon=":material/compare_arrows:",
        )
    elif not found.layers:
        _same(sides)
    else:
        trade_off.draw(view, sides, found)
        # Its library takes a cold page more than a second, so it is loaded when it is asked for.
        panel = st.expander(
            "All figures at once, in parallel coordinates",
            icon=":material/stacked_line_chart:",
            key="compare_parallel_panel",
            on_change="rerun",
        )
        if panel.open:
            with panel:
                parallel.draw(view, sides, theme.current())
        table.draw(view, found)


def _choice(view: View, offers: Mapping[str, Offer]) -> tuple[str, ...]:
    names = actions.chosen(view, offers)
    key = actions.names_key(names)
    st.multiselect(
        f"Strategies, up to {MOST}",
        list(offers),
        default=list(names),
        key=key,
        max_selections=MOST,
        on_change=actions.take_names,
        args=(key,),
        placeholder="Choose strategies",
        select_all=False,
        wrap=True,
    )
    with st.container(
        horizontal=True, horizontal_alignment="distribute", vertical_alignment="bottom"
    ):
        if len(names) > 1:
            key = actions.reference_key(names)
            st.radio(
                "Reference: differences are taken from it",
                names,
                index=names.index(actions.reference(names)),
                key=key,
                format_func=plain,
                on_change=actions.take_reference,
                args=(key, names),
                horizontal=True,
            )
        slot = st.popover("Keep current map as…", icon=":material/bookmark_add:")
        with slot, st.form("_compare_keep", border=False):
            st.text_input("Name", key=actions.NEW_NAME, placeholder=f"1 to {MAX_NAME} characters")
            problems.show(actions.KEEPING, once=True)
            st.form_submit_button("Keep", on_click=actions.keep)
    return names


def _gone() -> None:
    """What was deleted and can be brought back, below the cards: there one was looking."""
    gone = strategies.deleted()
    if gone is None:
        return
    with st.container(horizontal=True, vertical_alignment="center", border=True):
        st.markdown(f"Deleted '{plain(gone.name)}'.", width="content")
        st.button("Undo", on_click=actions.restore, key="_compare_restore", type="tertiary",
                  icon=":material/undo:")  # fmt: skip
        st.button("Dismiss", on_click=strategies.forget_deleted, key="_compare_forget",
                  type="tertiary")  # fmt: skip
    problems.show(actions.RESTORING, once=True)


def _nothing_chosen() -> None:
    st.info("No strategy is chosen. Choose two or more above.", icon=":material/compare_arrows:")
    st.button("Show the usual ones", on_click=actions.usual, key="_compare_usual")


def _same(sides: Sequence[Strategy]) -> None:
    policies = "\n".join(f"- **{plain(s.name)}**: {state.describe(s.map.policy)}" for s in sides)
    st.info(f"**{SAME_MAP}** No layer differs.\n\n{policies}", icon=":material/equal:")


page()
