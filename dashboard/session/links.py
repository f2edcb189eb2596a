"""A policy as the address of a page, and what an address means for a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

import streamlit as st

from core.decide.policy.policy import parse_rules
from core.decide.study import Study
from core.errors import PolicyError
from dashboard.session import allowed_control, studies
from dashboard.session.allowed_control import ALLOW, as_drawn
from dashboard.session.budget_controls import LOSS_BY, UNSAID, limits_loss
from dashboard.session.control import Clamped, Control, Value
from dashboard.session.controls import MODEL

NO_ADDRESS = "http://localhost:8501"


@dataclass(frozen=True, slots=True)
class Read:
    """What a link says: values by key, controls to write anew, numbers that did not fit, and
    notices.
    """

    values: dict[str, Value]
    repairs: dict[str, Value]
    fitted: dict[str, Clamped]
    notices: tuple[str, ...]


def read(given: Mapping[str, str], known: Mapping[str, Control], study: Study) -> Read:
    """Take the parameters of a link apart. Nothing in it is trusted; what is ignored is named."""
    values: dict[str, Value] = {}
    repairs: dict[str, Value] = {}
    fitted: dict[str, Clamped] = {}
    ignored = [key for key in given if key not in known and key != MODEL]
    for key, control in known.items():
        if key not in given:
            continue
        try:
            values[key] = value = control.read(given[key])
        except (ValueError, OverflowError):
            ignored.append(key)
            repairs[key] = control.default
            continue
        if not isinstance(value, str) and float(given[key]) != value:
            fitted[key] = Clamped(float(given[key]), value)
    if LOSS_BY not in given and limits_loss(given):
        values[LOSS_BY] = UNSAID
    if MODEL in given and given[MODEL] not in studies.entries():
        ignored.append(MODEL)
    notices = []
    if ignored:
        notices.append(
            f"Link had values that mean nothing here: {', '.join(sorted(ignored))} ignored, "
            "defaults used."
        )
    strangers = _strangers(given.get("overrides", ""), study)
    if strangers:
        notices.append(f"Link had layer names that are not in this model: {len(strangers)} ignored")
    return Read(values, repairs, fitted, tuple(notices))


def take_allowed(given: Mapping[str, str], study: Study) -> None:
    """Put the allowed precisions of a link into their control, before those that name a precision are
    read: what they may name depends on it. What cannot be read is left to `read`.
    """
    try:
        value = allowed_control.control(study).read(given[ALLOW])
    except (KeyError, ValueError):
        return
    st.session_state[ALLOW] = as_drawn(ALLOW, value)


def _strangers(text: str, study: Study) -> list[str]:
    try:
        rules = parse_rules(text)
    except PolicyError:
        return []
    return [name for name, _ in rules if name not in study.layers.index]


def write(values: Mapping[str, Value], known: Mapping[str, Control], model: str) -> str:
    """The full URL of the page on screen; values at their default are left out, but for what keeps
    a loss budget.
    """
    changed: dict[str, str | list[str]] = {
        k: as_drawn(k, v) if k == ALLOW else text(v)
        for k, v in values.items()
        if v != known[k].default
    }
    if limits_loss(values):
        changed[LOSS_BY] = str(values[LOSS_BY])
    if model != next(iter(studies.entries())):
        changed = {MODEL: model, **changed}
    address = (st.context.url or "").rstrip("/") or NO_ADDRESS
    return f"{address}/?{urlencode(changed, doseq=True)}" if changed else address


def correct(numbers: Mapping[str, Value]) -> None:
    """Put numbers of the address right that their controls cannot hold, and run again.

    Streamlit clears them from it otherwise, and a reload would find the defaults. Only before the
    controls were drawn first; from then on Streamlit writes what they hold.
    """
    for key, value in numbers.items():
        st.query_params[key] = text(value)
    st.rerun()


def text(value: Value) -> str:
    """A value as it stands in an address."""
    return f"{value:.10g}" if isinstance(value, float) else str(value)
