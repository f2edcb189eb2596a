"""How work that takes a while learns that nobody waits for it any more."""

from __future__ import annotations

import streamlit as st

from dashboard.session.tab import SESSION


def give_way() -> bool:
    """End this run if another was asked for, as by the next key press of a burst; else False.

    Streamlit looks for such requests whenever a script touches the state of its session, and
    leaves the run by an exception that is none of ours: what was half-done is neither kept nor
    shown. Made to be asked by work of `core` whether to stop.
    """
    _ = SESSION in st.session_state
    return False
