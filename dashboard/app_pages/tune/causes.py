"""Why a layer is sensitive, with the measured gain of each remedy."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from core.decide.advise.explain import diagnosis_of, gain_in_words
from core.quantity import UNKNOWN
from dashboard.display.text import typeset
from dashboard.session.view import View


def draw(view: View, i: int) -> None:
    """A sentence with the main cause of layer `i`, and what would help."""
    if not view.study.layers.layers[i].computes_at_inference:
        return
    found = diagnosis_of(view.study, i, view.policy)
    if found is None:
        st.caption(f"Why it is sensitive: {UNKNOWN}, its own output was not measured.")
        return
    title = "none" if found.cause == "none" else found.cause
    said = f"**Main cause in {view.study.score_precision}: {title}.** {found.sentence} {found.half}"
    st.markdown(typeset(f"{said} {found.advice}".strip()))
    if not found.remedies:
        return
    with st.expander("What would help, measured", icon=":material/healing:"):
        gains = [typeset(gain_in_words(r)) for r in found.remedies]
        rows = {"Remedy": [r.title for r in found.remedies], "Gain (measured)": gains}
        st.table(pd.DataFrame(rows).set_index("Remedy"))
        st.caption(
            "SQNR of the layer's own output with the remedy less that without, on calibration "
            "samples, with wider ranges on selection samples; below 0 it harms. What it does to the "
            "model's outputs is another question."
        )
