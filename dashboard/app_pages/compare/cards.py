"""Cards of strategies side by side: figures, differences, who beats whom, and what can be done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from core.decide.assess.compare import ComparedStrategy, Comparison, Strategy
from core.decide.assess.gains import Gain
from dashboard.app_pages.compare import actions
from dashboard.display import theme
from dashboard.display.loss_labels import POWERS, LossLabels
from dashboard.display.strategy_marks import MARKS
from dashboard.display.text import COSTS, format_gain, format_quantity, format_range, plain, typeset
from dashboard.session import problems, state
from dashboard.session.strategies import CURRENT, Offer
from dashboard.session.view import View

CARD_PX = 208
"""A narrower card would break its figures; the row wraps before."""


def draw(
    view: View, offers: Mapping[str, Offer], sides: Sequence[Strategy], found: Comparison
) -> None:
    """One card per strategy, in a row that wraps."""
    with st.grid(len(sides), min_column_width=CARD_PX, gap="small"):
        for place, (side, column) in enumerate(zip(sides, found.columns, strict=True)):
            with st.container(border=True, height="stretch", gap="xsmall"):
                _head(place, side, found)
                reference = side.name == found.reference
                st.markdown(_figures(view.loss_labels, side, column, reference=reference))
                st.markdown(theme.badges(side.map))
                _notes(side, found)
                with st.container(height="stretch", vertical_alignment="bottom"):
                    _actions(view, offers[side.name], side)


def _head(place: int, side: Strategy, found: Comparison) -> None:
    badge = " :gray-badge[reference]" if side.name == found.reference else ""
    st.markdown(f"{MARKS[place].glyph} **{plain(side.name)}**{badge}")
    same = found.same_as(side.name)
    also = f" · same map as {plain(', '.join(same))}" if same else ""
    st.caption(f"{state.describe(side.map.policy)}{also}")


def _figures(
    labels: LossLabels, side: Strategy, column: ComparedStrategy, *, reference: bool
) -> str:
    lines = []
    titles = COSTS | {name: plain(labels.card(name)) for name in labels.foremost}
    for name, title in titles.items():
        quantity = side.outcome.totals[name]
        span = format_range(quantity)
        text = f"**{format_quantity(quantity)}**" + (f" :small[({span})]" if span else "")
        if name in POWERS:  # the unit is in the title, or a card would be too narrow
            text = text.replace(f" {quantity.unit}", "")
        against = "–" if reference else delta_text(column.gains[name], quantity.unit)
        lines.append(
            f":small[{title} · {labels.kind(name, quantity.kind)}]  \n{text}  \n:small[{against}]"
        )
    return "\n\n".join(lines)


def delta_text(gain: Gain, unit: str) -> str:
    """A change as coloured Markdown with an arrow and a sign; less is better."""
    said = format_gain(gain, unit)
    if said is None:
        return "difference n/a"
    if not said:
        return "no difference"
    colour, arrow = ("green", "↓") if (gain.change or 0.0) < 0 else ("red", "↑")
    return f":{colour}[{arrow} {typeset(said)}]"


def dominated(side: str, found: Comparison) -> str:
    """As "dominated by All INT8 (size, latency)"; empty where no one dominates it."""
    winners = found.beaten_by(side)
    by = ", ".join(f"{name} ({', '.join(costs)})" for name, costs in winners.items())
    return f"dominated by {by}" if by else ""


def _notes(side: Strategy, found: Comparison) -> None:
    beaten = dominated(side.name, found)
    if beaten:
        st.markdown(f":small[:orange[:material/trending_down:] D{plain(beaten[1:])}]")
    warnings = side.outcome.warnings
    if warnings:
        title = "1 thing to know" if len(warnings) == 1 else f"{len(warnings)} things to know"
        with st.expander(title, icon=":material/warning:"):
            st.caption("\n".join(f"- {warning}" for warning in warnings))


def _actions(view: View, offer: Offer, side: Strategy) -> None:
    name = offer.name
    with st.container(horizontal=True, gap="xsmall"):
        # The map as priced here: a strategy kept on another device does not change the device.
        st.button(
            "Load into Tune",
            key=f"_compare_load_{name}",
            on_click=actions.load,
            args=(side.map.policy, view.study),
            disabled=name == CURRENT,
            width="stretch",
            help="It is in the controls already."
            if name == CURRENT
            else "Put it into the controls and open Tune. Undo brings yours back.",
        )
        if offer.own:
            with st.popover("Edit", icon=":material/edit:", width="stretch"):
                _edit(offer)
        else:
            _duplicate(offer)
            problems.show(actions.card(name), once=True)


def _duplicate(offer: Offer) -> None:
    st.button(
        "Duplicate",
        key=f"_compare_copy_{offer.name}",
        on_click=actions.duplicate,
        args=(offer,),
        icon=":material/content_copy:",
        width="stretch",
        help="Keep a copy as a strategy of your own.",
    )


def _edit(offer: Offer) -> None:
    key = f"_compare_name_{offer.name}"
    with st.form(f"_compare_rename_{offer.name}", border=False):
        st.text_input("Name", value=offer.name, key=key)
        problems.show(actions.card(offer.name), once=True)
        st.form_submit_button("Rename", on_click=actions.rename, args=(offer.name, key))
    _duplicate(offer)
    st.button(
        "Delete",
        key=f"_compare_delete_{offer.name}",
        on_click=actions.delete,
        args=(offer.name,),
        icon=":material/delete:",
        width="stretch",
        help="It can be brought back.",
    )
