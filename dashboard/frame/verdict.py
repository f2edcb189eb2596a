"""The frame of every page: the KPI row and one sentence on what the map comes to."""

from __future__ import annotations

import streamlit as st

from core.decide.assess.difference import in_words
from core.decide.assess.gains import Gain, gains
from core.decide.assess.outcome import CONFIDENCE_MEANING
from core.decide.assess.verified import faster_without_half
from core.estimate import hardware as hardware_profiles
from core.numerics import precision as registry
from core.quantity import RELATIVE, Quantity
from dashboard.display import theme
from dashboard.display.loss_labels import NO_LABELS, LossLabels
from dashboard.display.text import (
    counts_in_words,
    format_gain,
    format_quantity,
    format_range,
    plain,
    typeset,
    with_range,
)
from dashboard.session import state, studies
from dashboard.session.view import View

KIND_HELP = {
    "exact": "**Exact**: counted.",
    "estimated": "**Estimated**: from a cost model of the device, with a plausible range.",
    "projected": "**Projected**: from layers measured one at a time, with a 90 % range.",
    "measured": "**Measured**: this map was run.",
    "prior": "**Prior**: a rule's score.",
}

LEAST_CARD_PX, CARD_EDGES_PX, DIGIT_PX = 190, 30, 16
"""A card, what its edges take of it, and a character of its figure."""


def draw(view: View) -> None:
    """KPI row, verdict sentence and warnings."""
    _kpis(view)
    _sentence(view)


def _kpis(view: View) -> None:
    totals, base = view.now.found.totals, view.base.found
    change = gains(base, view.now.found)
    against = "vs pinned" if view.pinned else f"vs {view.reference.label}"
    reference, labels = view.reference.found.totals, view.loss_labels
    with st.grid(4, min_column_width=_card_px(view, labels.first), gap="small"):
        _card(
            "Size",
            totals["size_bytes"],
            change["size_bytes"],
            against,
            f"{format_quantity(reference['size_bytes'])} in {view.reference.label}",
        )
        _card(
            "Latency",
            totals["latency_ms"],
            change["latency_ms"],
            against,
            f"range {format_range(totals['latency_ms'])}",
        )
        _loss_card(view, labels, change[labels.first], against)
        _layers_card(view, against)


def _card_px(view: View, loss: str) -> int:
    """Room for the longest figure on the cards, which a narrower card would cut off."""
    totals = view.now.found.totals
    said = (_on_card(totals[name]) for name in ("size_bytes", "latency_ms", loss))
    return max(LEAST_CARD_PX, CARD_EDGES_PX + DIGIT_PX * max(map(len, said)))


def _on_card(quantity: Quantity) -> str:
    """A figure on its card; "of variance" leaves no room for the number, and the caption says it."""
    return format_quantity(quantity).removesuffix(f" {RELATIVE}")


def _loss_card(view: View, labels: LossLabels, gain: Gain, against: str) -> None:
    totals = view.now.found.totals
    loss, judged = totals[labels.first], totals[labels.figures.judged]
    span = format_range(loss)
    with st.container(border=True, height="stretch", gap="xxsmall"):
        st.metric(
            f"{plain(labels.title(labels.first))} · {loss.kind}",
            _on_card(loss),
            # Against FP32 the loss is its own delta; what the model is judged by says more.
            _delta(loss.unit, gain)
            if view.pinned
            else plain(labels.judged_in_brief(format_quantity(judged))),
            delta_color="inverse" if view.pinned else "off",
            delta_arrow="auto" if view.pinned else "off",
            delta_description=against if view.pinned and gain.change is not None else None,
            help=f"{KIND_HELP[loss.kind]} {_meaning(labels, loss)}",
        )
        said = f"90 % range {span}" if span else "nothing is projected for this map"
        if loss.value is not None and not span:
            said = "90 % range n/a"
        known = loss.value is not None
        # The level on the card says nothing without its split, which is not that of Overview's.
        marks = (
            labels.split(loss.kind) if known else "",
            f":orange[{labels.remark}]" if labels.remark and known else "",
        )
        st.caption(" · ".join(filter(None, (said, *marks))))


def _meaning(labels: LossLabels, loss: Quantity) -> str:
    """What the loss on the card says."""
    if not labels.labelled:
        return f"There are {NO_LABELS}: how far the outputs move from those in FP32 stands in its place."
    split = labels.split(loss.kind)
    if labels.metric is None:
        return f"In points of accuracy on the {split}."
    return (
        f"In percent of the FP32 model's {plain(labels.metric.name)}{labels.direction}, on the "
        f"{split}; positive is worse."
    )


def _card(title: str, quantity: Quantity, gain: Gain, against: str, note: str) -> None:
    with st.container(border=True, height="stretch", gap="xxsmall"):
        st.metric(
            f"{title} · {quantity.kind}",
            _on_card(quantity),
            _delta(quantity.unit, gain),
            delta_color="inverse",
            delta_description=against if gain.change is not None else None,
            help=KIND_HELP[quantity.kind],
        )
        st.caption(note)


def _delta(unit: str, gain: Gain) -> str | int | None:
    said = format_gain(gain, unit)
    # Streamlit draws a number 0 grey and without an arrow, but no text.
    return 0 if said == "" else said


def _layers_card(view: View, against: str) -> None:
    chosen, narrow = view.now.chosen, view.study.score_precision
    computing = int(view.study.layers.computes.sum())
    with st.container(border=True, height="stretch", gap="xxsmall"):
        st.metric(
            f"Layers in {narrow} · exact",
            f"{chosen.count(narrow):,} of {computing:,}",
            chosen.count(narrow) - view.base.chosen.count(narrow),
            delta_color="off",
            delta_description=against,
            help="Of the layers that compute; those that do nothing at inference have no "
            "precision.",
        )
        st.markdown(theme.badges(chosen))


def _sentence(view: View) -> None:
    now, reference = view.now.found.totals, view.reference.found.totals
    counts = counts_in_words(view.now.chosen)
    change = format_gain(gains(view.reference.found, view.now.found)["size_bytes"], "bytes")
    less = f", {typeset(change)}" if change else ""
    said_loss = _said_loss(view, view.loss_labels)
    device = hardware_profiles.get(view.policy.hardware).title.split(" (")[0]
    sentence = (
        f"**{counts or 'No layer computes'}**: size "
        f"{format_quantity(reference['size_bytes'])} → **{format_quantity(now['size_bytes'])}** "
        f"exact{less}, latency {format_quantity(reference['latency_ms'])} → "
        f"**{with_range(now['latency_ms'])}** {now['latency_ms'].kind} on {device}, "
        f"**{said_loss}**, against {view.reference.label}."
    )
    found = view.now.found
    notes = [
        f"Confidence: **{found.confidence}**, {CONFIDENCE_MEANING[found.confidence]}.",
        f"Against the pinned map ({view.base.label}): {in_words(view.changes)}."
        if view.pinned
        else "Nothing is pinned: Pin (Alt+P) keeps this map to compare with.",
    ]
    with st.container(border=True, gap="xsmall", key="verdict"):
        if view.unkept is not None:
            st.error(
                f"**{plain(view.unkept.cause)}** Every page shows the last map that there was: "
                f"{plain(view.now.label)}.",
                icon=":material/error:",
            )
        st.markdown(sentence)
        st.caption(" ".join(notes))
        _warnings(view, found.warnings)


def _said_loss(view: View, labels: LossLabels) -> str:
    loss = view.now.found.totals[labels.first]
    said = f"{loss.kind} {plain(labels.titles[labels.first])} {format_quantity(loss)}"
    span = format_range(loss)
    notes = [f"90 % range {span}"] if span else []
    notes += [labels.split(loss.kind)] if loss.kind == "measured" else []
    if loss.value is not None and labels.remark:
        notes.append(labels.remark)
    if not labels.labelled:
        notes.append(NO_LABELS)
    return f"{said} ({'; '.join(notes)})" if notes else said


def _warnings(view: View, warnings: tuple[str, ...]) -> None:
    warnings = tuple(plain(warning) for warning in warnings)  # they name layers
    if len(warnings) == 1:
        st.markdown(f":orange[:material/warning:] {warnings[0]}")
        _offer(view)
    elif warnings:
        with st.expander(f"{len(warnings)} things to know", icon=":material/warning:"):
            st.markdown("\n".join(f"- {warning}" for warning in warnings))
            _offer(view)


def _offer(view: View) -> None:
    """A button for the same map without half precisions, where that is faster."""
    study = view.study
    better = faster_without_half(study, view.now.chosen)
    if better is None:
        return
    found = studies.priced(view.opened, better.policy)[1].totals
    latency = found["latency_ms"]
    st.button(
        f"Use {registry.REFERENCE} in place of half precisions: {format_quantity(latency)} "
        f"{latency.kind}, {format_quantity(found['size_bytes'])}",
        key="use_fp32",
        icon=":material/speed:",
        on_click=state.load,
        args=(better.policy, study),
    )
