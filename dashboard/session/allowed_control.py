"""The control of allowed precisions.

The browser holds a list of names, in the order of its clicks; everything else sees one text, the
widest first. All names stand for no limit, and so does an empty list.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from core.decide.policy.allowed import format_allowed, in_order, parse_allowed
from core.decide.policy.policy import Policy
from core.decide.study import Study
from dashboard.session.control import Control, Value

ALLOW = "allow"
"""Key of the control."""


def held(study: Study) -> tuple[str, ...]:
    """What `study` holds, in the order of the control."""
    return in_order(study.precisions)


def control(study: Study) -> Control:
    """The control; everything is allowed unless a person says otherwise."""
    every = held(study)

    def read(text: str) -> str:
        names = parse_allowed(text) or every
        if not set(names) <= set(every):
            raise ValueError(text)
        return format_allowed(names)

    return Control(ALLOW, format_allowed(every), read)


def as_drawn(key: str, value: Value) -> Any:
    """What the widget `key` holds where its control has `value`."""
    return list(parse_allowed(str(value))) if key == ALLOW else value


def as_value(key: str, drawn: Any, default: Value) -> Value:
    """The value of a control whose widget holds `drawn`."""
    if key != ALLOW or isinstance(drawn, str):
        found: Value = drawn
        return found
    return format_allowed(in_order(drawn)) or default


def allowed(value: Value, study: Study) -> tuple[str, ...]:
    """The field of a policy that the control gives: empty where all that there is may be chosen."""
    names = parse_allowed(str(value))
    return () if set(names) >= set(study.precisions) else names


def value_of(policy: Policy, study: Study) -> Value:
    """The control's value that gives the set of `policy`."""
    return format_allowed(name for name in held(study) if policy.allows(name))


def current(study: Study) -> tuple[str, ...]:
    """The set that the control holds, empty for all."""
    return allowed(as_value(ALLOW, st.session_state.get(ALLOW, ()), ""), study)
