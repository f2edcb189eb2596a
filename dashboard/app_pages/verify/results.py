"""What running maps has shown: figures beside their projections, layers, residuals."""

from __future__ import annotations

import math

import pandas as pd
import streamlit as st

from core.decide.advise.corrections import (
    ENOUGH,
    Correction,
    Residual,
    correction,
    in_words,
    residuals,
)
from core.decide.assess.loss import loss_figures
from core.decide.assess.outcome import accuracy_totals
from core.decide.assess.verified import agreement_in_words, half_layers, ran_codes, sentences
from core.estimate.hardware import THIS_MACHINE
from core.export.map.words import count
from core.numerics.precision import REFERENCE
from core.quantity import UNKNOWN, unknown
from core.records.verification import Verification
from dashboard.app_pages.verify import actions
from dashboard.charts import figure
from dashboard.charts import residuals as verify_chart
from dashboard.display import theme
from dashboard.display.text import (
    format_number,
    format_quantity,
    plain,
    table_height,
    with_range,
)
from dashboard.session.view import View

FIGURE_PX = 230
PREDICTED = "Projected (selection split) or estimated"


def this_map(view: View, found: Verification) -> None:
    """The figures of the map on screen as measured, and what became of its layers."""
    st.markdown("**This map, measured**")
    st.caption(
        f"On {found.samples:,} {found.split} samples, {found.machine.processor}, "
        f"{found.machine.runtime}, {found.machine.threads} thread, {found.created[:16]}."
    )
    figures = _figures(view, found)
    st.dataframe(
        figures,
        hide_index=True,
        height=table_height(len(figures)),
        column_config=dict.fromkeys(figures.columns, st.column_config.TextColumn(width=FIGURE_PX)),
        alt="Measured figures of this map beside the projected or estimated ones",
    )
    st.caption(
        "A projection is of the selection split, so what was measured there stands beside it. It "
        "is of the precisions that ran, as is everything measured"
        + (": those of the map on screen differ, and so does its own projection."
           if not found.is_as_asked else ".")
    )  # fmt: skip
    st.caption(plain(agreement_in_words(found)))
    for sentence in sentences(view.study, found):
        st.markdown(f":orange[:material/warning:] {plain(sentence)}")
    if half_layers(view.study, found) and view.policy.allows(REFERENCE):
        st.button(
            f"Use {REFERENCE} in place of half precision",
            on_click=actions.widen,
            args=(view,),
            icon=":material/swap_horiz:",
            help=f"Sends layers to {REFERENCE} wherever the policy sends them to a half precision.",
        )
    _layers(found)


def _figures(view: View, found: Verification) -> pd.DataFrame:
    """Measured on the split that judges; then, of the selection split, measured beside the
    projection of what ran, so that what stands side by side is of the same samples.
    """
    labels, same = view.loss_labels, "Measured, selection split"
    codes = ran_codes(view.study, found)
    projected = accuracy_totals(view.study, view.study.project(codes))
    estimated = UNKNOWN
    if view.study.analysis.profile is not None:
        estimated = with_range(view.study.latency(THIS_MACHINE).estimate(codes).total)
    nothing, timing = unknown("", "measured"), found.timing
    rows = [
        (
            _title(labels.titles.get(name, name)),
            with_range(quantity),
            with_range(found.same_samples.get(name, nothing)),
            with_range(projected[name]),
        )
        for name, quantity in found.figures.items()
    ]
    rows += [
        (f"Latency per sample, batch {timing.batch}", with_range(timing.map_ms), "", estimated),
        ("Latency of FP32", with_range(timing.reference_ms), "", ""),
        ("Map ÷ FP32", with_range(timing.ratio), "", ""),
        ("File", format_number(found.file_bytes, "bytes"), "",
         format_number(found.predicted_file_bytes, "bytes")),
        ("Peak memory", format_number(found.peak_bytes, "bytes"), "", ""),
        ("Agreement with the simulation", _db(found.agreement_db), "", ""),
        ("Error against FP32", _db(found.error_db), "", _db(found.simulated_error_db)),
    ]  # fmt: skip
    frame = pd.DataFrame(
        rows, columns=["Figure", f"Measured, {found.split} split", same, PREDICTED]
    )
    return frame if found.split != "selection" else frame.loc[:, ~frame.columns.duplicated()]


def _title(text: str) -> str:
    return text[:1].upper() + text[1:]


def _db(value: float | None) -> str:
    return "no difference" if value is None else f"{value:.1f} dB"


def _layers(found: Verification) -> None:
    otherwise = len(found.otherwise)
    title = (
        "Every layer ran as asked"
        if not otherwise
        else f"{count(otherwise, 'layer')} ran otherwise"
    )
    with st.expander(title, icon=":material/checklist:"):
        frame = pd.DataFrame(
            [
                (row.name, row.asked or "–", row.got or "–", row.how, row.why)
                for row in found.layers
            ],
            columns=["Layer", "Asked", "Got", "How", "Why not as asked"],
        )
        st.dataframe(frame, hide_index=True, alt="What every layer asked for and got")


def learnt(view: View) -> None:
    """How far projections of this model were off, map by map."""
    found = residuals(view.study)
    st.subheader("How far to trust the projection", anchor="trust")
    st.markdown(plain(in_words(view.study, found)))
    if not found:
        return
    name = loss_figures(accuracy_totals(view.study, None)).divergence
    fitted = correction(view.study, found)
    spec = verify_chart.residual_chart(found, name, view.loss_labels.title(name), theme.current())
    if spec is not None:
        figure.draw(spec, key="residuals", file="verified-maps",
                    alt="Measured against projected divergence of every verified map")  # fmt: skip
    st.dataframe(
        pd.DataFrame([_row(view, one, name) for one in found]),
        hide_index=True,
        height=table_height(len(found)),
        alt="Every verified map: projected, estimated and measured figures and their residuals",
    )
    _correction(view, found, fitted, name)


def _row(view: View, one: Residual, divergence: str) -> dict[str, str]:
    run, figures = one.verification, loss_figures(accuracy_totals(view.study, None))
    narrow = sum(name == view.study.score_precision for name in run.precisions)
    error = one.log_error(divergence)
    nothing = unknown("", "measured")
    estimated, measured = one.estimated_ms, run.timing.map_ms
    return {
        "Map": run.label or run.created[:16],
        f"Layers in {view.study.score_precision}": f"{narrow:,}",
        "Loss, projected": with_range(one.projected[figures.loss]),
        "Loss, measured": format_quantity(one.measured(figures.loss) or nothing),
        "Divergence, projected": format_quantity(one.projected[divergence]),
        "Divergence, measured": format_quantity(one.measured(divergence) or nothing),
        "measured ÷ projected": UNKNOWN if error is None else f"{math.exp(error):.2f}",
        f"Loss, {run.split} split": with_range(run.figures.get(figures.loss, nothing)),
        "Latency, estimated here": format_quantity(estimated),
        "Latency, measured": format_quantity(measured),
        "÷ FP32": format_quantity(run.timing.ratio),
        "As asked": "yes" if run.is_as_asked else f"{len(run.otherwise)} not",
    }


def _correction(view: View, found: list[Residual], fitted: Correction | None, name: str) -> None:
    if fitted is None:
        st.caption(
            f"A correction is fitted from {ENOUGH} verified maps on; there are {len(found)}."
        )
        return
    before, after = (100 * (math.exp(x) - 1) for x in (fitted.error_before, fitted.error_after))
    said = (
        f"Fitted on {fitted.maps} maps: log(measured) = {fitted.offset:.2f} + {fitted.slope:.2f} · "
        f"log(projected). On maps left out in turn the mean error is {after:.0f} %, without it "
        f"{before:.0f} %."
    )
    if not fitted.helps:
        st.caption(f"{said} It does not help, so projections stay as they are.")
        return
    st.caption(said)
    projected = accuracy_totals(view.study, view.study.project(view.now.chosen.codes))[name]
    st.markdown(
        f"Corrected, {view.loss_labels.titles[name]} of the map on screen, as asked, is projected at "
        f"**{with_range(fitted.applied(projected))}** (uncorrected {with_range(projected)})."
    )
