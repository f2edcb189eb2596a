"""The detail of one layer: what it is, what it does to the whole, its weights, and its fate."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from core.decide.assess.layer_effect import by_precision, integer_precisions
from core.decide.policy.decision import BY_OVERRIDE
from core.decide.policy.scoring import LEVELS
from core.evidence.diagnose.weight_profile import WeightProfile
from core.layers import Layer
from core.quantity import UNKNOWN, Quantity
from dashboard.app_pages.tune import causes, certainty, groups
from dashboard.charts import figure, weights
from dashboard.display import theme
from dashboard.display.loss_labels import NO_LABELS
from dashboard.display.text import (
    format_number,
    plain,
    role_title,
    state_of,
    with_range,
)
from dashboard.session import state, studies
from dashboard.session.view import View

PICKER = "layer_pick"
TABLE_PX, CHART_PX = 440, 300
"""Narrower columns are put below each other."""
EFFECTS = (("alone", "Only this layer"), ("all_but", "All but this layer"),
           ("everything", "All layers"))  # fmt: skip


def draw(view: View) -> None:
    """The panel on Tune, with a way to choose a layer by keyboard."""
    with st.container(border=True, gap="small", key="layer_detail"):
        layer = _choose(view)
        if not layer:
            st.caption("Choose a layer here, click one in a chart, or press Show in its row below.")
            return
        i = view.study.layers.index[layer]
        _about(view, i)
        certainty.draw(view, i)
        causes.draw(view, i)
        with st.grid(2, min_column_width=TABLE_PX, gap="small"):
            with st.container():
                _effect(view, layer)
            with st.container():
                _costs(view, layer)
        _weights(view, layer)


def _choose(view: View) -> str:
    names = view.study.layers.names
    layer = state.selected(view.study)
    if st.session_state.get(PICKER) != (layer or None):
        st.session_state[PICKER] = layer or None
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown("**Layer detail**", width="content")
        st.selectbox(
            "Layer",
            names,
            index=None,
            key=PICKER,
            placeholder="Choose a layer",
            label_visibility="collapsed",
            on_change=_picked,
            width=330,
        )
        if layer:
            st.button(
                "Close", type="tertiary", key="_close_layer", on_click=state.select, args=("",)
            )
    return layer


def _picked() -> None:
    state.select(st.session_state[PICKER] or "")


def _about(view: View, i: int) -> None:
    chosen = view.now.chosen
    layer: Layer = view.study.layers.layers[i]
    assigned = chosen.assigned[i]
    precision = theme.badge(assigned) if assigned else "no precision"
    score = f"{LEVELS[chosen.levels[i]]}, score {chosen.scores[i]:.3f}"
    st.markdown(
        f"{precision} {role_title(layer.role)} ({layer.kind}) · {score} · in INT8: "
        f"{plain(state_of(layer))}"
    )
    st.markdown(chosen.reason(i))
    groups.line(view, i)
    with st.container(horizontal=True, vertical_alignment="center"):
        if not layer.computes_at_inference:
            st.caption("A layer that does nothing at inference has no precision to choose.")
            return
        unknown = view.study.unknown
        for code, name in enumerate(view.study.precisions):
            lacks = unknown is not None and bool(unknown[code, i])
            st.button(
                f"{'Keep' if name == assigned else 'Force'} {name}",
                key=f"_force_{name}",
                on_click=state.force,
                args=(layer.name, name),
                disabled=chosen.origin[i] == BY_OVERRIDE and name == assigned,
                help=f"An override: {plain(layer.name)} stays in {name} whatever the policy says."
                + (" It is not measured there yet: nothing would be projected." if lacks else ""),
            )
        st.button(
            "Auto",
            key="_force_auto",
            on_click=state.force,
            args=(layer.name, None),
            disabled=chosen.origin[i] != BY_OVERRIDE,
            help="Take the override away: the policy decides.",
        )


def _costs(view: View, name: str) -> None:
    layer = view.study.layers.layers[view.study.layers.index[name]]
    rows = [
        {
            "Precision": precision,
            "Size (exact)": f"{size / 1e3:,.3f} kB",
            "Time (estimated)": format_number(ms, "ms"),
        }
        for precision, (size, ms) in by_precision(view.study, name, view.policy.hardware).items()
    ]
    st.table(pd.DataFrame(rows).set_index("Precision"))
    shapes = f"{_shape(layer.input_shape)} → {_shape(layer.output_shape)} per sample"
    st.caption(
        f"{layer.params:,} parameters, {layer.macs:,} multiply-accumulates, {shapes}. Times leave "
        "out conversions between layers."
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(str(size) for size in shape) or "scalar"


def _effect(view: View, name: str) -> None:
    low = (
        view.policy.low if view.policy.low in view.study.precisions else view.study.score_precision
    )
    effect = studies.effect(view.opened, name, low, view.policy.hardware)
    if effect is None:
        st.caption("It does nothing at inference, so no precision has an effect.")
        return
    labels, rows = view.loss_labels, []
    for field, title in EFFECTS:
        totals: dict[str, Quantity] = getattr(effect, field)
        rows.append(
            {
                f"In {low}": title,
                **{plain(labels.title(key)): with_range(totals[key]) for key in labels.order},
                "Kind": totals[labels.first].kind,
            }
        )
    st.table(pd.DataFrame(rows).set_index(f"In {low}"))
    if effect.alone[labels.first].value is None and view.study.analysis.evidence is not None:
        st.caption(f"{UNKNOWN}: outputs are not finite (overflow), or the sum holds such a layer.")
    elif not labels.labelled:
        st.caption(f"{UNKNOWN}: {NO_LABELS}.")
    st.caption(
        "Everything else is in FP32. Alone: measured on the selection samples (a module is simulated, "
        "an ONNX file runs on ONNX Runtime), with the range of the sample; the others are projected, "
        "with a 90 % range."
        + (
            " These samples also set the ranges of activations: optimistic."
            if labels.optimistic
            else ""
        )
    )


def _weights(view: View, name: str) -> None:
    profiles = [w for w in view.study.analysis.weights if w.layer == name]
    if not profiles:
        why = (
            "this analysis was written before weights were counted; analyze the model again"
            if not view.study.analysis.weights
            else "this layer owns no weights that an integer precision rounds"
        )
        st.caption(f"Weights: {UNKNOWN}, {why}.")
        return
    tensors = [w.tensor for w in profiles]
    tensor = tensors[0]
    if len(tensors) > 1:
        tensor = st.segmented_control(
            "Weights of",
            tensors,
            default=tensors[0],
            format_func=lambda t: t.removeprefix(f"{name}."),
            key=f"weights_of_{name}",
            required=True,
        ) or tensors[0]  # fmt: skip
    profile = next(w for w in profiles if w.tensor == tensor)
    grids = integer_precisions(view.study)
    with st.grid(2, min_column_width=CHART_PX, gap="small"):
        with st.container():
            _histogram(view, profile, grids[-1] if grids else view.study.score_precision)
        with st.container():
            _channels(view, profile)


def _histogram(view: View, profile: WeightProfile, precision: str) -> None:
    count = int(profile.counts.sum())
    line = figure.header(f"Weights on the {precision} grid")
    said = (
        f"{count:,} weights on {profile.levels_used} of {len(profile.counts)} levels; "
        f"effective {profile.effective_bits:.1f} of 8 bits (exact)"
    )
    figure.draw(
        weights.histogram(profile, precision, theme.current()),
        key="weight_histogram",
        alt=f"Histogram of {profile.tensor}: {said}",
        file=f"{view.opened.name}.{profile.tensor}.histogram",
        header=line,
    )
    st.caption(f"{said}. Few levels in use mean outliers that stretch the grid.")


def _channels(view: View, profile: WeightProfile) -> None:
    if profile.kind == "table":
        st.markdown("**Range of each channel**")
        st.caption("An embedding table is stored on one grid; it has no channels of its own.")
        return
    line = figure.header("Range of each output channel")
    times = UNKNOWN if profile.imbalance is None else f"{profile.imbalance:.1f}×"
    said = f"{len(profile.low):,} channels; the widest has {times} the range of the median one"
    figure.draw(
        weights.channels(profile, theme.current()),
        key="weight_channels",
        alt=f"Smallest and largest weight of each channel of {profile.tensor}: {said}",
        file=f"{view.opened.name}.{profile.tensor}.channels",
        header=line,
    )
    st.caption(f"{said} (exact), so one scale per channel is worth that much.")
