"""Tables of the Overview: roles, the document's figures, facts of the model."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from core.decide.assess.by_role import by_role
from core.estimate.size import fixed_bytes
from core.export.report import facts as facts_of
from core.quantity import UNKNOWN
from dashboard.display.text import (
    format_number,
    plain,
    role_title,
    table_height,
    with_range,
)
from dashboard.session import studies
from dashboard.session.view import View

IN_NO_LAYER = "in no layer"


def roles(view: View) -> None:
    """Layers, parameters and precisions by role."""
    summaries = by_role(view.now.chosen, view.now.found)
    rows = [
        {
            "Role": role_title(s.role),
            "Layers": s.layers,
            "Mean score": s.mean_score,
            "Parameters": s.params,
            "Size (kB)": s.size_bytes / 1e3,
            **s.precisions,
            "No precision": s.idle,
        }
        for s in summaries
    ]
    fixed = fixed_bytes(view.study.layers)
    rows.append({"Role": IN_NO_LAYER, "Size (kB)": None if fixed is None else fixed / 1e3})
    with st.container(border=True, gap="xsmall"):
        st.markdown("**By role**")
        st.dataframe(
            pd.DataFrame(rows).convert_dtypes(),
            hide_index=True,
            placeholder=UNKNOWN if fixed is None else "",
            column_config={
                "Mean score": st.column_config.ProgressColumn(
                    format="%.2f", min_value=0, max_value=1
                ),
                "Parameters": st.column_config.NumberColumn(format="localized"),
                "Size (kB)": st.column_config.NumberColumn(format="%.3f", help="Exact."),
            },
            alt="Layers, parameters and precisions by role",
        )
        st.caption(
            f"{IN_NO_LAYER.capitalize()}: {format_number(fixed, 'bytes')}"
            f"{'' if fixed is None else ' exact'} of tensors that every map holds as they are."
        )


def document(view: View) -> None:
    """What the reference document states, beside what this model gives."""
    rows = [
        {
            "Figure": c.figure,
            "Document": c.stated,
            "Recomputed": c.recomputed
            if isinstance(c.recomputed, str)
            else with_range(c.recomputed),
            "Kind": "" if isinstance(c.recomputed, str) else c.recomputed.kind,
            "Comment": c.comment,
        }
        for c in studies.compared(view.opened, view.policy.hardware)
    ]
    with st.expander("The reference document's figures beside the recomputed ones",
                     icon=":material/fact_check:"):  # fmt: skip
        st.caption("Under the document's own policy, on the hardware chosen in the sidebar.")
        st.dataframe(
            pd.DataFrame(rows),
            hide_index=True,
            height=table_height(len(rows)),
            column_config={
                "Figure": st.column_config.TextColumn(width=190),
                "Document": st.column_config.TextColumn(width=96),
                "Recomputed": st.column_config.TextColumn(width=168),
                "Kind": st.column_config.TextColumn(width=76),
                "Comment": st.column_config.TextColumn(width=430),
            },
            alt="Figures that the document states beside the recomputed ones",
        )


def _seconds(took: float | None) -> str:
    if took is None:
        return UNKNOWN
    return "less than 1 s" if took < 1 else f"{took:,.0f} s"


def facts(view: View) -> None:
    """What the model is, on what it was measured, and how long that took."""
    analysis = view.study.analysis
    (best_title, best), (naive_title, naive) = facts_of.judged(analysis)
    took = _seconds(analysis.seconds)
    rows = {
        plain(best_title): best,
        plain(naive_title): naive,
        "Task": plain(facts_of.task(analysis)),
        "Splits": facts_of.splits(analysis),
        "Scheme": plain(analysis.how_rounded),
        "Data": plain(analysis.data_description) or UNKNOWN,
        **({"Outputs of a sample": plain(kept)} if (kept := facts_of.outputs(analysis)) else {}),
        "Evidence": f"Measured in {took}" if analysis.evidence is not None else
        "Nothing measured yet: scores are priors, and no loss is projected",
        "Weights (SHA-256)": f"`{analysis.identity.weights_sha256[:16]}`",
    }  # fmt: skip
    with st.container(border=True, gap="xsmall"):
        st.markdown(f"**{plain(analysis.title)}**")
        st.markdown(plain(analysis.description))
        st.markdown("\n".join(f"- **{name}**: {text}" for name, text in rows.items()))
        for note in analysis.notes:
            st.caption(plain(note))
