"""A chart with what belongs to every chart: a sentence for those who cannot see it, and its data."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from core.export.map.csv_table import LINE_END, safe_cell
from dashboard.charts.template import Spec

DATA_HELP = "The numbers behind this chart as CSV, one row per mark."


def draw(
    spec: Spec,
    *,
    key: str,
    alt: str,
    file: str,
    on_select: Callable[[], None] | None = None,
    header: DeltaGenerator | None = None,
) -> None:
    """Draw a Vega-Lite chart and offer its data as `file`.csv, in `header` or below the chart.

    `on_select` is called when a selection of the chart changes; its state is under `key`.
    """
    st.vega_lite_chart(
        spec=spec, key=key, alt=alt, on_select="ignore" if on_select is None else on_select
    )
    if header is None:
        header = st.container(horizontal=True, horizontal_alignment="right")
    with header:
        offer_data(spec["datasets"], key=key, file=file)


def header(title: str) -> DeltaGenerator:
    """A line with the title of a chart, with room for its controls and its data."""
    line = st.container(horizontal=True, vertical_alignment="center")
    line.markdown(f"**{title}**", width="stretch")
    return line


def offer_data(datasets: dict[str, pd.DataFrame], *, key: str, file: str) -> None:
    """A small button that downloads the data of a chart; the CSV is made when it is pressed."""
    st.download_button(
        "Data (CSV)",
        lambda: to_csv(datasets),
        file_name=f"{file}.csv",
        mime="text/csv",
        on_click="ignore",
        type="tertiary",
        icon=":material/table_view:",
        key=f"_data_{key}",
        help=DATA_HELP,
    )


def to_csv(datasets: dict[str, pd.DataFrame]) -> bytes:
    """All datasets of a chart under one header; with several, a first column says which.

    Text that a spreadsheet would run as a formula is quoted.
    """
    frames = {name: frame for name, frame in datasets.items() if len(frame.columns)}
    if len(frames) == 1:
        (table,) = frames.values()
    else:
        table = pd.concat(
            [frame.assign(dataset=name) for name, frame in frames.items()], ignore_index=True
        )
        table = table[["dataset", *(c for c in table.columns if c != "dataset")]]
    text = [c for c in table.columns if not pd.api.types.is_numeric_dtype(table[c])]
    table = table.assign(**{c: table[c].map(safe_cell) for c in text})
    table = table.rename(columns=safe_cell)
    return table.to_csv(index=False, lineterminator=LINE_END).encode()
