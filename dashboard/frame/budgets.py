"""Budgets in the sidebar: one slider for what is limited, and what was found in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from core.decide.advise.budget_words import found_in_words
from core.decide.policy.budget import Axis, in_words
from core.decide.solve.solver import Solver
from core.decide.study import Study
from core.errors import InfeasibleError
from dashboard.session import state
from dashboard.session.budget_controls import (
    AXIS_OF,
    ENDS,
    LEAST,
    LOSS_BY,
    MAIN,
    UNSAID,
    budget_ends,
    decimals,
    limits_loss,
    loss_scale,
    step_between,
)
from dashboard.session.control import Control
from dashboard.session.view import View


def beside(key: str, why: Mapping[str, str]) -> None:
    """What is to be said of the control `key`: of a number that did not fit, and why it changes
    nothing where it does not (`why`, by key).
    """
    if said := state.fitted(key):
        st.caption(f":orange[:material/warning:] {said}")
    if key in why:
        st.caption(why[key])


def slider(
    view: View, known: Mapping[str, Control], axis: Axis, why: Mapping[str, str]
) -> DeltaGenerator:
    """The main control of a budget. Returns where what it found belongs."""
    study = view.study
    if study.analysis.evidence is None:
        st.info("Budgets need measurements: measure this model first.", icon=":material/science:")
    control = known[MAIN[axis]]
    drawn = state.session().ends
    least, most = ends = drawn.get(control.key) or budget_ends(study, view.policy, axis)
    step = step_between(ends, axis, study)
    title, text = _in_words(study, axis)
    places = max(2, decimals(step))
    st.slider(
        title,
        least,
        most if most > least else least + step,
        min(max(float(control.default), least), most),
        step,
        format=f"%.{places}f",
        key=control.key,
        bind="query-params",
        help=text,
        disabled=control.key in why,
    )
    beside(control.key, why)
    if axis == "loss":
        st.segmented_control(
            "Make least",
            LEAST,
            default=known["least"].default,
            key="least",
            bind="query-params",
            required=True,
        )
        _kept_by()
    return st.container()


def _kept_by() -> None:
    """Which end of the projected loss has to stay within its budget."""
    st.segmented_control(
        "Loss kept by",
        ENDS,
        default=UNSAID,
        key=LOSS_BY,
        bind="query-params",
        required=True,
        help="**Upper end**: the whole 90 % range of the projected loss stays within the budget.  \n"
        "**Point**: the projected loss does, and its range may reach beyond.",
    )


def _in_words(study: Study, axis: Axis) -> tuple[str, str]:
    """The title of a budget's main control, and its help."""
    if axis == "size":
        return "Size at most (MB)", (
            "Tensor bytes of the whole map, exact. The map with the least projected loss within "
            "it is looked for."
        )
    if axis == "latency":
        return "Latency at most (% of FP32)", (
            "Of the estimated latency with every layer in FP32 on the chosen device, with every "
            "precision boundary priced. The point of the estimate has to stay within it."
        )
    return loss_scale(study).title, (
        "Projected on the selection samples, checked by projecting the map that is found. Below is "
        "said whether the upper end of its 90 % range or the point has to stay within it."
    )


def groups() -> None:
    """The text with groups."""
    st.text_input(
        "Groups",
        key="groups",
        bind="query-params",
        placeholder="blocks.0.*, head*",
        help="Wildcards, separated by commas: the layers that one of them matches share a "
        "precision, under every strategy.",
    )


def further() -> None:
    """The text with budgets beside the slider's."""
    st.text_input(
        "Further budgets",
        key="also",
        bind="query-params",
        placeholder="latency=0.9, loss=0.5",
        help="Kept beside the slider of a budget strategy, which they beat: size=0.5 of FP32 or "
        "size=4.8MB, latency=0.8 or latency=0.8ms, loss=0.5.",
    )
    held = {str(key): value for key, value in st.session_state.items()}
    if limits_loss(held) and AXIS_OF.get(str(held.get("strategy"))) != "loss":
        _kept_by()


def offer(view: View) -> None:
    """A button for the least that exists, where a budget that was asked for is below it."""
    asked, error = state.session().unkept or (view.policy, None)
    if not isinstance(error, InfeasibleError) or not error.axis:
        return
    other = next(b for b in asked.budgets if b.axis == error.axis)
    least = replace(other, amount=error.nearest)
    budgets = tuple(least if b is other else b for b in asked.budgets)
    st.button(
        f"Ask for {in_words(least)}",
        key="use_least",
        on_click=state.load,
        args=(replace(asked, budgets=budgets), view.study),
    )


def found(view: View, slot: DeltaGenerator) -> None:
    """Say in `slot` what the budget of the map on screen found."""
    policy = view.policy
    solution = view.study.derived(Solver).solve(policy)
    slot.caption(found_in_words(view.study, policy, solution))
