"""The allowed precisions fitted to a model, and the controls that name a precision fitted to them."""

from __future__ import annotations

import streamlit as st

from core.decide.policy.allowed import in_order, within
from core.decide.policy.policy import GOES_TO, Policy, redirected
from core.decide.study import Study
from core.errors import listed
from dashboard.session.allowed_control import ALLOW, held
from dashboard.session.tab import Tab


def fit(tab: Tab, study: Study, model: str) -> tuple[str, ...]:
    """Fit the set to `study`. Returns it, empty for all. Run before controls are drawn.

    What another model held and this one does not is left out, and said; a model that is opened while
    everything is allowed allows everything.
    """
    every = held(study)
    drawn = st.session_state.get(ALLOW)
    names = in_order(drawn) if drawn else every
    if tab.offered and set(names) >= set(tab.offered):
        names = every
    kept = tuple(name for name in names if name in every) or every
    if kept != names:
        gone = listed([name for name in names if name not in every])
        tab.notices.append(f"{model} does not hold {gone}: allowed are {', '.join(kept)} now.")
    if drawn is not None and drawn and in_order(drawn) != kept:
        st.session_state[ALLOW] = list(kept)
    tab.offered = every
    return () if kept == every else kept


def redirect(tab: Tab, study: Study, names: tuple[str, ...]) -> None:
    """Fit the controls that name a precision to the set `names`. Run before controls are drawn.

    A level that points to what is not allowed goes where a policy sends it, and back once that is allowed
    again, unless a person moved it since.
    """
    for key in GOES_TO:
        _redirect(tab, study, key, names)


def _redirect(tab: Tab, study: Study, key: str, names: tuple[str, ...]) -> None:
    at = str(st.session_state.get(key, getattr(study.default_policy, key)))
    wanted, sent = tab.redirected.pop(key, (at, at))
    if at != sent or wanted not in study.precisions:  # moved since, or of another model
        wanted = at
    if wanted not in study.precisions:
        return
    goes = within(wanted, names) if names and wanted not in names else wanted
    if goes != at:
        st.session_state[key] = goes
    if goes != wanted:
        tab.redirected[key] = wanted, goes


def said(tab: Tab, policy: Policy) -> list[str]:
    """Sentences on levels of `policy` that go elsewhere than a person sent them."""
    return redirected({key: wanted for key, (wanted, _) in tab.redirected.items()}, policy)
