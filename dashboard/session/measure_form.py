"""Keys of the form of Measure, which other pages may fill in."""

from __future__ import annotations

import streamlit as st

SOURCE, UNITS, SCHEME = "measure_source", "measure_units", "measure_scheme"
_FILLED = "_measure_filled"


def fill(source: str, *, expanded_units: bool, scheme: str) -> None:
    """Choose what is to be measured. Run from a callback."""
    st.session_state[SOURCE] = source
    st.session_state[UNITS] = expanded_units
    st.session_state[SCHEME] = scheme
    st.session_state[_FILLED] = True


def was_filled() -> bool:
    """Whether the form was filled in; asked once."""
    return bool(st.session_state.pop(_FILLED, False))
