"""The part of Method on what a map costs, and what is advised."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from core.decide.advise import advice as rules
from core.estimate import hardware as hardware_profiles
from core.numerics import precision as registry
from core.numerics import precision_marks, storage
from dashboard.app_pages.method import text as words
from dashboard.display import theme


def costs() -> None:
    """Formulas of size and latency."""
    st.subheader("Size and latency", anchor="costs")
    st.latex(
        r"\mathrm{bytes}_i = \sum_t n_t \frac{b}{8} + c_t\,(s + z) \qquad "
        r"t_i = \max\!\left(\frac{\mathrm{MACs}_i}{P\, e},\ \frac{\mathrm{bytes\ moved}_i}{B\, e}"
        r"\right) + o"
    )
    st.markdown(words.COSTS.format(
        scale=storage.SCALE_BYTES, zero=storage.ZERO_POINT_BYTES, bias=storage.BIAS_BYTES,
    ))  # fmt: skip


def hardware() -> None:
    """Profiles with the source of their numbers."""
    st.subheader("Hardware profiles", anchor="hardware")
    rows = [
        {
            "Device": p.title,
            "Kernels": ", ".join(f"{name} {peak:,.0f}" for name, peak in p.peak_gmac_per_s.items()),
            "Bandwidth (GB/s)": f"{p.bandwidth_gb_per_s:g}",
            "Efficiency": f"{p.efficiency.typical:.0%} ({p.efficiency.low:.0%} to "
            f"{p.efficiency.high:.0%})",
            "Overhead (µs)": f"{p.overhead_us:g} a layer, {p.boundary_us:g} a boundary",
            "Source": p.source,
        }
        for p in hardware_profiles.profiles().values()
    ]
    st.table(pd.DataFrame(rows).set_index("Device"))
    st.caption("Kernels: peak in 10^9 multiply-accumulates per second. A float precision that is "
               "missing runs as FP32 between casts.")  # fmt: skip


def advice() -> None:
    """The cut-offs of the verdict and of the recommendations."""
    st.subheader("Feasibility and recommendations", anchor="advice")
    st.markdown(
        words.ADVICE.format(
            proceed=rules.PROCEED_DROP_PTS,
            avoid=rules.AVOID_DROP_PTS,
            reduction=rules.LEAST_REDUCTION_PCT,
            quantizable=rules.LEAST_QUANTIZABLE_PCT,
            edge=rules.EDGE_DROP_PTS,
            high=rules.HIGH_PRECISION_DROP_PTS,
        )
    )


def palette() -> None:
    """Colours with their second cues."""
    st.subheader("Colours, and what stands beside them", anchor="palette")
    rows = [
        (theme.badge(name), registry.get(name).bits, theme.short(name),
         precision_marks.of(name).marker.replace("-", " "))
        for name in registry.names()
    ]  # fmt: skip
    st.table(
        pd.DataFrame(rows, columns=["Precision", "Height in the strip (bits)", "Label", "Marker"])
        .set_index("Precision")
    )  # fmt: skip
    st.caption("▲ more bits than the pinned map, ▼ fewer. A small cross is a layer that does "
               "nothing at inference.")  # fmt: skip
