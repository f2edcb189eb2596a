"""Method: what the numbers mean, made from the same data that computes them."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from core.decide.assess.outcome import CONFIDENCE_MEANING
from core.decide.policy.policy import Policy
from core.estimate.combine_perturbations import FORMS
from core.estimate.projection import FEW_SAMPLES
from core.evidence import scorers
from core.evidence.scorers import priors
from core.layers import ROLES
from dashboard.app_pages.method import costs, schemes
from dashboard.app_pages.method import text as words
from dashboard.display.text import role_title, table_height


def page() -> None:
    """Draw the page; it needs no model."""
    _kinds()
    _score()
    _scorers()
    _priors()
    _states()
    _projection()
    costs.costs()
    costs.hardware()
    costs.advice()
    costs.palette()
    _glossary()


def _kinds() -> None:
    st.subheader("Five words that never blur", anchor="kinds")
    st.dataframe(
        pd.DataFrame(words.KINDS, columns=["Word", "Meaning", "Where you see it"]),
        hide_index=True,
        alt="Exact, prior, projected, estimated and measured",
    )
    said = "; ".join(f"**{name}**: {text}" for name, text in CONFIDENCE_MEANING.items())
    st.caption(f"Confidence of a map. {said}.")


def _score() -> None:
    st.subheader("From scores to a precision", anchor="score")
    defaults = Policy()
    st.latex(r"s_i = \frac{\sum_k w_k\, s_{ki}}{\sum_k w_k} \qquad s_{ki} \in [0, 1]")
    shares = ", ".join(
        f"{scorers.get(name).title.lower()} {share:g}"
        for name, share in defaults.normalised_weights().items()
    )
    st.markdown(
        f"Each scorer *k* gives layer *i* a score from 0 to 1, higher = more sensitive, by a rule "
        f"that does not depend on the other layers; the weights are divided by their sum. "
        f"A score of {defaults.high_threshold:g} or more is **HIGH**, of "
        f"{defaults.medium_threshold:g} or more **MEDIUM**, the rest **LOW**. HIGH goes to "
        f"{defaults.high}, MEDIUM to {defaults.medium}, LOW to {defaults.low}. These defaults, "
        f"and the weights {shares}, are the reference document's; every one is a control. "
        "An override beats a pin, the last pin that matches wins, a pin beats a group, and a group "
        "beats the strategy."
    )


def _scorers() -> None:
    st.subheader("Scorers", anchor="scorers")
    rows = [(s.title, s.kind, s.description, s.source, s.name) for s in scorers.SCORERS.values()]
    st.table(pd.DataFrame(rows, columns=["Scorer", "Kind", "What it says", "Source", "Name"])
             .set_index("Scorer"))  # fmt: skip


def _priors() -> None:
    with st.expander("Prior scores by role, with the reasons", icon=":material/rule:"):
        tables = {kind: priors.scores(kind) for kind in priors.KINDS}
        rows = [
            {
                "Role": role_title(role),
                **{scorers.get(kind).title: tables[kind][role] for kind in priors.KINDS},
                "Reason": priors.reason(role),
            }
            for role in ROLES
        ]
        titles = [scorers.get(kind).title for kind in priors.KINDS]
        st.dataframe(
            pd.DataFrame(rows),
            hide_index=True,
            height=table_height(len(rows)),
            column_config={t: st.column_config.NumberColumn(format="%.2f") for t in titles},
            alt="Prior scores of every role",
        )


def _states() -> None:
    st.subheader("What INT8 means for a layer", anchor="states")
    st.table(pd.DataFrame(words.STATES, columns=["State", "Meaning", "Such as"]).set_index("State"))
    schemes.schemes()
    schemes.calibrators()
    schemes.quantizers()


def _projection() -> None:
    st.subheader("Projected loss", anchor="projection")
    st.latex(
        r"\hat y(\mathrm{map}) = y + C\bigl(\{\Delta y_i(p_i)\}\bigr) + \sum_p u_p^{\gamma}\, r_p, "
        r"\qquad r_p = \Delta y(\text{all in } p) - C\bigl(\{\Delta y_i(p)\}\bigr)"
    )
    forms = "; ".join(form.in_words() for form in FORMS)
    st.markdown(words.PROJECTION.format(few=FEW_SAMPLES, forms=forms))
    st.markdown(words.PROJECTION_FAILS)
    heads = ["Task", "Outputs", "Judged by", "A loss is in", "How far the outputs move"]
    st.table(pd.DataFrame(words.TASKS, columns=heads).set_index("Task"))
    st.markdown(words.VALUES)


def _glossary() -> None:
    st.subheader("Glossary", anchor="glossary")
    st.markdown("\n".join(f"- **{term}**: {text}" for term, text in words.GLOSSARY))


page()
