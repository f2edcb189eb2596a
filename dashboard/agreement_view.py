"""Where the scores agree with the measurement, and where they are wrong for this model."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from core.evidence.agreement import TRUTH, Agreement
from core.evidence.scorers import SCORERS
from dashboard import studies
from dashboard.tables import UNKNOWN, format_number, role_title, typeset
from dashboard.view import View


def draw(view: View) -> None:
    """An expander that computes only when it is open."""
    panel = st.expander(
        "Do the rules of thumb agree with the measurement?",
        icon=":material/balance:",
        key="agreement",
        on_change="rerun",
    )
    if not panel.open:
        return
    with panel:
        found = studies.agreed(view.opened)
        if not found:
            st.info(
                f"{UNKNOWN}: nothing was measured for this model, so there is no judge of the "
                "rules. `python -m core analyze` measures it.",
                icon=":material/info:",
            )
            return
        _summary(found)
        _disagreements(view, found)


def _summary(found: tuple[Agreement, ...]) -> None:
    st.caption(
        f"Spearman's rank correlation with the measured {SCORERS[TRUTH].title.lower()} over the "
        "layers that compute: 1 = the same order, 0 = unrelated, −1 = reversed."
    )
    with st.grid(len(found), min_column_width=150, gap="small"):
        for one in found:
            st.metric(
                SCORERS[one.scorer].title,
                UNKNOWN if one.spearman is None else typeset(f"{one.spearman:.2f}"),
                help=SCORERS[one.scorer].description,
                border=True,
            )


def _disagreements(view: View, found: tuple[Agreement, ...]) -> None:
    titles = {one.scorer: SCORERS[one.scorer].title for one in found}
    chosen = st.segmented_control(
        "Layers that disagree most, by",
        list(titles),
        default=found[0].scorer,
        format_func=lambda name: titles[name],
        key="agreement_scorer",
        required=True,
        persist_state="session",
    )
    one = next((a for a in found if a.scorer == chosen), found[0])
    layers = view.study.layers
    rows = [
        {
            "Layer": layers.names[d.layer],
            "Role": role_title(layers.roles[d.layer]),
            "Place by score": d.place_by_score,
            "Place by measurement": d.place_by_truth,
            "Score": float(view.study.scores[one.scorer][d.layer]),
            "Measured": float(view.study.scores[TRUTH][d.layer]),
            "The rule is": "too careful" if d.gap > 0 else "too bold",
        }
        for d in one.worst
    ]
    if not rows:
        st.caption("They agree on every layer.")
        return
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        column_config={
            "Place by score": st.column_config.NumberColumn(
                format="%.1f", help="1 = most sensitive; ties share the mean of their places."
            ),
            "Place by measurement": st.column_config.NumberColumn(format="%.1f"),
            "Score": st.column_config.NumberColumn(format="%.2f"),
            "Measured": st.column_config.NumberColumn(
                format="%.2f", help="Output error score, measured."
            ),
        },
        alt="Layers on which the score and the measurement disagree most",
    )
    st.caption(f"Of {format_number(one.layers, 'layers')} that compute.")
