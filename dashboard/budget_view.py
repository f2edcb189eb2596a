"""Budgets in the sidebar: one slider for what is limited, and what was found in words."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from core.decide.budget import Axis
from core.decide.found_words import found_in_words
from core.study import Study
from dashboard import studies
from dashboard.budget_controls import (
    LEAST,
    MAIN,
    decimals,
    loss_scale,
    positions,
)
from dashboard.control import Control
from dashboard.view import View


def slider(study: Study, known: Mapping[str, Control], axis: Axis) -> DeltaGenerator:
    """The main control of a budget. Returns where what it found belongs."""
    if study.analysis.evidence is None:
        st.info("Budgets need measurements: measure this model first.", icon=":material/science:")
    control = known[MAIN[axis]]
    if axis == "size":
        _slider(
            "Size at most (MB)", control, positions(axis, study),
            "Tensor bytes of the whole map, exact. The map with the least projected loss within "
            "it is looked for.",
        )  # fmt: skip
    elif axis == "latency":
        _slider(
            "Latency at most (% of FP32)", control, positions(axis, study),
            "Of the estimated latency with every layer in FP32 on the chosen device, with every "
            "precision boundary priced.", places=1,
        )  # fmt: skip
    else:
        _slider(
            loss_scale(study).title, control, positions(axis, study),
            "Projected on the selection samples, checked by projecting the map that is found.",
        )  # fmt: skip
        st.segmented_control(
            "Make least",
            LEAST,
            default=known["least"].default,
            key="least",
            bind="query-params",
            required=True,
        )
    return st.container()


def _slider(
    title: str, control: Control, at: tuple[float, float, float], text: str,
    places: int | None = None,
) -> None:  # fmt: skip
    least, most, step = at
    st.slider(
        title,
        least,
        most,
        float(control.default),
        step,
        format=f"%.{max(2, decimals(step)) if places is None else places}f",
        key=control.key,
        bind="query-params",
        help=text,
    )


def beside() -> None:
    """Texts that every budget may have beside its slider."""
    st.text_input(
        "Groups",
        key="groups",
        bind="query-params",
        placeholder="blocks.0.*, head*",
        help="Wildcards, separated by commas: the layers that one of them matches share a "
        "precision, under every strategy.",
    )
    st.text_input(
        "Further budgets",
        key="also",
        bind="query-params",
        placeholder="latency=0.9, loss=0.5",
        help="Kept beside the slider of a budget strategy, which they beat: size=0.5 of FP32 or "
        "size=4.8MB, latency=0.8 or latency=0.8ms, loss=0.5.",
    )


def found(view: View, slot: DeltaGenerator) -> None:
    """Say in `slot` what the budget of the map on screen found."""
    policy = view.policy
    if policy.strategy != "budget":
        return
    first = studies.first_only(view.opened, policy)
    solution = view.study.solver.solve(policy, first=first)
    more = ""
    if first:
        many = len(view.study.layers) > studies.MANY_LAYERS
        more = " A first answer: `plan` searches on." if many else " Looking further…"
    slot.caption(found_in_words(view.study, policy, solution) + more)
