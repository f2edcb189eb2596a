"""How sure a layer's scores and its precision are, given the samples they were measured on."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from core.decide.stability.resampling import DRAWS, resampled_scores, settling
from core.evidence.scorers import SCORERS
from core.quantity import UNKNOWN
from dashboard.session import studies
from dashboard.session.view import View


def draw(view: View, i: int) -> None:
    """A sentence about layer `i`, and every score with its interval behind an expander."""
    if not view.study.layers.layers[i].computes_at_inference:
        return
    if studies.resampled_already(view.opened, view.policy) or st.button(
        "How sure is it? (some seconds)", key="_resample", icon=":material/casino:",
        help="Solves the budget again for resamples of the selection samples.",
    ):  # fmt: skip
        found = studies.stability(view.opened, view.policy)
        st.caption(f"{settling(found, view.now.chosen, i)}")
    with st.expander("Scores of this layer", icon=":material/speed:"):
        st.table(_scores(view, i).set_index("Scorer"))
        st.caption(
            f"Interval: the middle 90 % of {DRAWS} resamples of the selection samples (measured). "
            f"{UNKNOWN}: what the scorer needs is missing, or it uses no selection samples."
        )


def _scores(view: View, i: int) -> pd.DataFrame:
    shares = view.policy.normalised_weights()
    rows = []
    for name, scorer in SCORERS.items():
        score = view.study.scores.get(name)
        interval = view.study.derived(resampled_scores).interval(name, i)
        rows.append(
            {
                "Scorer": scorer.title,
                "Score": UNKNOWN if score is None else f"{score[i]:.3f}",
                "Interval": UNKNOWN if interval is None else "{:.3f} to {:.3f}".format(*interval),
                "Weight": f"{shares.get(name, 0):.0%}",
                "Kind": scorer.kind,
            }
        )
    return pd.DataFrame(rows)
