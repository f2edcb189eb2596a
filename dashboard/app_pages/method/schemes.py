"""Method: the schemes, what INT8 means under each, how ranges and grids of groups are chosen."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from core.numerics import kernel_table
from core.numerics.calibrate.calibrators import CALIBRATORS
from core.numerics.quantizers import QUANTIZERS
from core.numerics.scheme import SCHEMES
from dashboard.display.text import table_height


def schemes() -> None:
    """How each target does integers, with the source of every fact."""
    st.markdown(
        "**Schemes**: " + " ".join(f"`{s.name}`: {s.description}" for s in SCHEMES.values())
    )
    with st.expander("What INT8 means, by scheme and layer", icon=":material/memory:"):
        rows = [
            {"Scheme": scheme, "Layer": runs, "INT8": row["state"], "Source": row["source"]}
            for scheme, table in kernel_table.table().items()
            for runs, row in table.items()
        ]
        st.dataframe(
            pd.DataFrame(rows),
            hide_index=True,
            height=table_height(min(len(rows), 12)),
            alt="What INT8 means for every kind of layer under every scheme",
        )


def calibrators() -> None:
    """How the ranges of activations are chosen."""
    said = "; ".join(f"`{c.name}`: {c.title} ({c.source})" for c in CALIBRATORS.values())
    st.markdown(f"**Calibrators** set the range of each activation on calibration samples. {said}.")


def quantizers() -> None:
    """Whose grids weights by groups lie on."""
    said = "; ".join(f"`{q.name}`: {q.title} ({q.source})" for q in QUANTIZERS.values())
    st.markdown(
        f"**Quantizers** place the grid of each group of weights (INT8-W, INT4, INT2). {said}."
    )
