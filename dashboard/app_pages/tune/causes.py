"""Why a layer is sensitive, with the measured gain of each remedy."""

from __future__ import annotations

import math

import pandas as pd
import streamlit as st

from core.evidence.diagnose.causes import diagnose
from core.quantity import UNKNOWN
from dashboard.display.text import typeset
from dashboard.session.view import View


def draw(view: View, i: int) -> None:
    """A sentence with the main cause of layer `i`, and what would help."""
    evidence, layer = view.study.analysis.evidence, view.study.layers.layers[i]
    if not layer.computes_at_inference:
        return
    found = None if evidence is None else diagnose(evidence, i)
    if found is None:
        st.caption(f"Why it is sensitive: {UNKNOWN}, its own output was not measured.")
        return
    title = "none" if found.cause == "none" else found.cause
    said = f"**Main cause in {view.study.narrowest}: {title}.** {found.sentence} {found.half}"
    st.markdown(typeset(f"{said} {found.advice}".strip()))
    if not found.remedies:
        return
    with st.expander("What would help, measured", icon=":material/healing:"):
        gains = [
            "no error left" if math.isinf(r.gain_db) else typeset(f"{r.gain_db:+.1f} dB")
            for r in found.remedies
        ]
        rows = {"Remedy": [r.title for r in found.remedies], "Gain (measured)": gains}
        st.table(pd.DataFrame(rows).set_index("Remedy"))
        st.caption(
            "SQNR of the layer's own output with the remedy less that without, on calibration "
            "samples; below 0 it harms. What it does to the model's outputs is another question."
        )
