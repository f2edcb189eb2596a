"""The layer strip with its choice of widths, and what stands there for a model without layers."""

from __future__ import annotations

from functools import partial

import streamlit as st

from dashboard.charts import figure, layers
from dashboard.display import theme
from dashboard.display.text import plain
from dashboard.session import selection, state
from dashboard.session.view import View


def empty(view: View) -> None:
    """A model without anything to quantize."""
    found = plain(", ".join(view.study.layers.glue[:8])) or "no operation at all"
    st.info(
        f"**No layer that can be quantized was found in {plain(view.study.analysis.title)}.**\n\n"
        f"Found: {found}. Layers are made of linear maps, convolutions, attention, embeddings, "
        "norms and activations. Choose another model in the sidebar.",
        icon=":material/layers_clear:",
    )


def strip(view: View, where: str) -> None:
    """The layer strip with the choice of its widths."""
    name = f"strip_chart_{where}"
    with st.container(border=True, gap="xsmall"):
        line = figure.header("Layers in execution order")
        measure = line.segmented_control(
            "Width of a layer",
            layers.WIDTHS,
            default=layers.WIDTHS[0],
            key=f"strip_{where}",
            label_visibility="collapsed",
            required=True,
            persist_state="session",
        )
        figure.draw(
            layers.strip(view, measure or layers.WIDTHS[0], theme.current()),
            key=selection.chart_key(name, state.selected(view.study)),
            on_select=partial(selection.take, name),
            alt=f"Layers in execution order, coloured by precision: {layers.in_words(view)}",
            file=f"{view.opened.name}.layers",
            header=line,
        )
        st.caption(
            f"Width: share of {(measure or layers.WIDTHS[0]).lower()}"
            f"{' in FP32' if measure == 'Bytes' else ''}. Height: bits; the pale bar behind is the "
            "layer in FP32. Click one to see its detail on Tune."
            + (" ▲ more bits than pinned, ▼ fewer." if view.pinned else "")
        )
