"""The frontier on Tune: what every budget gives, and a click that makes one the policy."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import streamlit as st

from core.decide.assess.compare import COSTS, Cost
from core.decide.assess.frontier import Frontier
from core.errors import QuantscapeError
from dashboard.charts import figure
from dashboard.charts.curve import CHOICE
from dashboard.charts.frontier import PICKED, Shown, called, chart
from dashboard.display import theme
from dashboard.display.boundary import show_expected
from dashboard.display.text import format_quantity, plain
from dashboard.session import frontiers, state, strategies
from dashboard.session.view import View

AXIS = "frontier_axis"
ROUND = "_frontier_round"
POLL_S = 1.0


def draw(view: View) -> None:
    """The frontier with the map on screen, the pinned one and what is always there."""
    if view.study.analysis.evidence is None:
        return
    with st.container(border=True, gap="xsmall"):
        line = figure.header("Frontier: the least loss for every budget")
        chosen = line.segmented_control(
            "Budget on",
            COSTS,
            default=COSTS[0],
            key=AXIS,
            label_visibility="collapsed",
            required=True,
            persist_state="session",
        )
        axis: Cost = next((c for c in COSTS if c == chosen), COSTS[0])
        if not frontiers.asked(view.opened, view.policy, axis) and not st.button(
            "Solve the frontier (minutes)", key="_frontier_wanted", icon=":material/timeline:"
        ):
            st.caption("This model has many layers: its frontier is made when you ask for it.")
            return
        try:
            found = frontiers.ready(view.opened, view.policy, axis, wanted=True)
        except QuantscapeError as error:
            show_expected(error)
            return
        if found is None:
            _waiting(view, axis)
        else:
            _drawn(view, found, line)


@st.fragment(run_every=POLL_S)
def _waiting(view: View, axis: Cost) -> None:
    """Look again now and then; the page is drawn anew when the frontier is there."""
    st.info("Solving a budget for each point of the frontier, once for these rules…",
            icon=":material/hourglass_top:")  # fmt: skip
    if frontiers.ready(view.opened, view.policy, axis) is not None:
        st.rerun()


def _drawn(view: View, found: Frontier, line: Any) -> None:
    labels = view.loss_labels
    measure = str(st.session_state.get(CHOICE) or labels.figures.divergence)
    measure = measure if measure in labels.charted else labels.figures.divergence
    shown = [Shown(strategies.CURRENT, view.now.found.comparable)]
    if view.pinned:
        shown.append(Shown(strategies.PINNED, view.base.found.comparable))
    for name, offer in strategies.offers(view).items():
        if offer.policy.strategy == "uniform" or offer.own:
            shown.append(Shown(name, strategies.side(view, offer).found.comparable))
    drawn = chart(found, shown, measure, labels, theme.current())
    if drawn is None:
        st.info("n/a: no loss is projected.", icon=":material/info:")
        return
    key = f"frontier_{found.axis}_{st.session_state.get(ROUND, 0)}"
    figure.draw(
        drawn,
        key=key,
        on_select=partial(take, key, found, view),
        alt=f"Frontier of {labels.chooser(measure)} against {found.axis}, {len(found.points)} maps",
        file=f"{view.opened.name}.frontier_{found.axis}",
        header=line,
    )
    beaten = found.dominating(view.now.found.comparable)
    said = "Nothing on the frontier beats the map on screen."
    if beaten is not None:
        said = (
            f"The map on screen is beaten by {plain(called(beaten, found.axis))} "
            f"({plain(format_quantity(beaten.totals[labels.figures.divergence]))})."
        )
    st.caption(
        f"{said} Losses stand as projected, without their ranges. Click a point to load its budget as "
        "the policy; pale maps are beaten."
    )


def take(key: str, found: Frontier, view: View) -> None:
    """Make the budget of the point that was clicked the policy. Run as a callback."""
    picked = st.session_state.get(key, {}).get("selection", {}).get(PICKED)
    if not picked:
        return
    number = int(picked[0]["point"])
    if not 1 <= number <= len(found.points):
        return
    point = found.points[number - 1].policy
    wanted = replace(view.policy, strategy="budget", budgets=point.budgets, minimise=point.minimise)
    state.load(wanted, view.study)
    # The chart keeps its selection in the browser: a new key lets the same point count again.
    st.session_state[ROUND] = int(st.session_state.get(ROUND, 0)) + 1
