"""Projected accuracy of each class and the samples whose answer changes, on Tune."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from core.decide.assess.classes import ByClass, by_class
from dashboard.charts import figure
from dashboard.display.text import format_quantity, plain, with_range
from dashboard.session.view import View

MOST_ROWS = 200


def draw(view: View) -> None:
    """A panel that is worked out when it is opened; nothing for outputs that are no classes."""
    if view.study.analysis.metric is not None or view.study.analysis.evidence is None:
        return
    panel = st.expander(
        "Each class, and the samples whose answer changes",
        icon=":material/category:",
        key="classes_panel",
        on_change="rerun",
    )
    if panel.open:
        with panel:
            found = by_class(view.study, view.now.chosen.codes)
            if found is None:
                st.info("n/a: nothing is projected for this map.", icon=":material/info:")
            else:
                _classes(view, found)
                _flips(view, found)


def _classes(view: View, found: ByClass) -> None:
    if not found.classes:
        st.caption("There are no labels, so no accuracy by class.")
        return
    frame = pd.DataFrame(
        {
            "Class": [plain(c.name) for c in found.classes],
            "Answers": [f"{c.answers:,}" for c in found.classes],
            "FP32, measured": [format_quantity(c.reference) for c in found.classes],
            "This map, projected": [with_range(c.accuracy) for c in found.classes],
            "Loss, projected": [with_range(c.drop_pts) for c in found.classes],
        }
    )
    st.table(frame.set_index("Class").head(MOST_ROWS))
    if len(frame) > MOST_ROWS:
        st.caption(f"The first {MOST_ROWS} of {len(frame):,}; the CSV holds all.")
    st.caption("Accuracy on the selection samples; in brackets the 90 % range of each class.")
    numbers = pd.DataFrame(
        {
            "class": [c.name for c in found.classes],
            "answers": [c.answers for c in found.classes],
            "reference_pct": [c.reference.value for c in found.classes],
            "projected_pct": [c.accuracy.value for c in found.classes],
            "low_pct": [c.accuracy.low for c in found.classes],
            "high_pct": [c.accuracy.high for c in found.classes],
        }
    )
    figure.offer_data({"classes": numbers}, key="classes", file=f"{view.opened.name}.classes")


def _flips(view: View, found: ByClass) -> None:
    flips = found.flips
    if not flips:
        st.markdown("No answer is projected to change.")
        return
    counts = {
        effect: sum(f.effect == effect for f in flips) for effect in ("lost", "won", "neither")
    }
    said = ", ".join(f"{count} {effect}" for effect, count in counts.items() if count)
    st.markdown(
        f"**{len(flips):,} answers are projected to change**" + (f": {said}." if said else ".")
    )
    steps = any(f.step for f in flips)
    frame = pd.DataFrame(
        {
            "sample": [f.sample for f in flips],
            **({"step": [f.step for f in flips]} if steps else {}),
            "label": [f.label or "n/a" for f in flips],
            "in FP32": [f.before for f in flips],
            "under this map": [f.after for f in flips],
            "effect": [f.effect for f in flips],
        }
    )
    st.dataframe(frame.head(MOST_ROWS), hide_index=True, width="stretch")
    if len(frame) > MOST_ROWS:
        st.caption(f"The first {MOST_ROWS} of {len(frame):,}; the CSV holds all.")
    figure.offer_data({"flips": frame}, key="flips", file=f"{view.opened.name}.flips")
