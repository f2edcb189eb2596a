"""What a run shows: the map on screen, the reference, and the map to compare with."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from core.decide.assess.difference import Change, difference
from core.decide.assess.outcome import Outcome
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.errors import PolicyError
from core.numerics.precision import REFERENCE
from dashboard.display.loss_labels import LossLabels, loss_labels
from dashboard.session import state, studies
from dashboard.session.studies import Opened

VIEW = "_view"


@dataclass(frozen=True, eq=False)
class Side:
    """A map with its figures, and what people call it."""

    label: str
    chosen: PrecisionMap
    found: Outcome


@dataclass(frozen=True, eq=False)
class View:
    """Everything a page shows. `base` is the pinned map, or all FP32 where nothing is pinned.

    `unkept` says why what the controls ask for has no map: then `now` is the last one that had.
    """

    opened: Opened
    now: Side
    reference: Side
    base: Side
    pinned: bool
    changes: tuple[Change, ...]
    unkept: PolicyError | None = None

    @property
    def study(self) -> Study:
        """The study on screen."""
        return self.opened.study

    @property
    def policy(self) -> Policy:
        """The policy on screen: the last valid one."""
        return self.now.chosen.policy

    @property
    def loss_labels(self) -> LossLabels:
        """What maps of the model on screen lose, in its own words."""
        return loss_labels(self.study.analysis, self.reference.found.totals)


def current() -> View:
    """What the current run shows; set by the entrypoint before a page runs."""
    found: View = st.session_state[VIEW]
    return found


def previous() -> View | None:
    """What this tab showed last; None before its first run."""
    found: View | None = st.session_state.get(VIEW)
    return found


def build(opened: Opened) -> View:
    """Decide and price what is on screen, the reference and the pinned map, on one device."""
    tab = state.session()
    policy = tab.last
    now = Side(state.describe(policy), *studies.priced(opened, policy))
    uniform = Policy(strategy="uniform", uniform=REFERENCE, hardware=policy.hardware)
    reference = Side(REFERENCE, *studies.priced(opened, uniform))
    pinned = tab.pinned.get(opened.name)
    base = reference
    if pinned is not None:
        base = Side(state.describe(pinned), *studies.priced_on(opened, pinned, policy.hardware))
    changes = difference(base.chosen, now.chosen) if pinned is not None else ()
    unkept = None if tab.unkept is None else tab.unkept[1]
    found = View(opened, now, reference, base, pinned is not None, changes, unkept)
    st.session_state[VIEW] = found
    return found
