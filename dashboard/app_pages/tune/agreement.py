"""Where the scores agree with the measurement, and what changes if one is trusted alone."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from core.decide.assess.by_scorer import Trusted
from core.evidence.diagnose.agreement import TRUTH, Agreement
from core.evidence.scorers import SCORERS
from core.quantity import UNKNOWN
from dashboard.display.text import format_number, role_title, table_height
from dashboard.session import studies
from dashboard.session.view import View

MOST_ROWS_SHOWN = 10


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
        found = {one.scorer: one for one in studies.agreed(view.opened)}
        if not found:
            st.info(
                f"{UNKNOWN}: nothing was measured for this model, so there is no judge of the "
                "rules. `python -m core analyze` measures it.",
                icon=":material/info:",
            )
        trusted = {one.scorer: one for one in studies.trusted(view.opened, view.policy)}
        _summary(found, trusted)
        chosen = _choose(list(trusted))
        if chosen in found:
            _disagreements(view, found[chosen])
        if chosen in trusted:
            _changes(view, trusted[chosen])


def _summary(found: dict[str, Agreement], trusted: dict[str, Trusted]) -> None:
    """One row per scorer: its agreement, and how many layers it would change."""
    rows = []
    for name, scorer in SCORERS.items():
        agreement, trust = found.get(name), trusted.get(name)
        rows.append(
            {
                "Scorer": scorer.title,
                "Kind": scorer.kind,
                "Agreement": 1.0 if name == TRUTH and found else
                (None if agreement is None else agreement.spearman),
                "Layers that change": None if trust is None else len(trust.changes),
                "More bits": None if trust is None else trust.wider,
                "Fewer bits": None if trust is None else trust.narrower,
                "Needs": scorer.needs,
            }
        )  # fmt: skip
    column = st.column_config
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        height=table_height(len(rows)),
        column_config={
            "Agreement": column.NumberColumn(
                format="%.2f",
                help=f"Spearman's rank correlation with the measured {SCORERS[TRUTH].title.lower()} "
                "over the layers that compute: 1 = the same order, 0 = unrelated, −1 = reversed. "
                "Empty: n/a.",
            ),
            "Layers that change": column.NumberColumn(
                help="Layers that get another precision if this scorer alone is weighed; "
                "thresholds, pins and overrides stay. Empty: n/a."
            ),
        },
        alt="Each scorer's rank agreement with the measurement, and the layers it would change",
    )


def _choose(names: list[str]) -> str:
    chosen = st.selectbox(
        "Look closer at",
        names,
        format_func=lambda name: SCORERS[name].title,
        key="agreement_scorer",
        persist_state="session",
        width=330,
    )
    return str(chosen)


def _disagreements(view: View, one: Agreement) -> None:
    layers = view.study.layers
    rows = [
        {
            "Layer": layers.names[d.layer],
            "Role": role_title(layers.roles[d.layer]),
            "Place by score": d.place_by_score,
            "Place by measurement": d.place_by_truth,
            "Score": float(view.study.scores[one.scorer][d.layer]),
            "Measured": float(view.study.scores[TRUTH][d.layer]),
            "The score is": "too careful" if d.gap > 0 else "too bold",
        }
        for d in one.worst
    ]
    if not rows:
        st.caption("It agrees with the measurement on every layer.")
        return
    st.markdown("**Layers on which it disagrees most with the measurement**")
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


def _changes(view: View, one: Trusted) -> None:
    """The layers that flip if the scorer is trusted alone."""
    title = SCORERS[one.scorer].title
    if not one.changes:
        st.caption(f"Trusting {title} alone changes no layer.")
        return
    st.markdown(f"**Layers that change if {title} alone is trusted**")
    index, score = view.study.layers.index, view.study.scores[one.scorer]
    rows = [
        {
            "Layer": change.layer,
            "Now": change.before,
            "Then": change.after,
            "Score now": float(view.now.chosen.scores[index[change.layer]]),
            "Its score": float(score[index[change.layer]]),
        }
        for change in one.changes
    ]
    scores = st.column_config.NumberColumn(format="%.3f")
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        height=table_height(min(len(rows), MOST_ROWS_SHOWN)),
        column_config={"Score now": scores, "Its score": scores},
        alt=f"Layers that change precision if {title} alone is trusted",
    )
