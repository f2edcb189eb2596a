"""The form of the page Measure: which model, whose data, which precisions, at what price."""

from __future__ import annotations

import streamlit as st

from core.export.map.words import count
from core.jobs.job_folder import Request
from core.jobs.jobs import Job
from core.numerics import precision as registry
from core.quantity import UNKNOWN, duration
from dashboard.app_pages.measure import actions, options, upload
from dashboard.app_pages.measure.actions import MAX_MB, UPLOADER
from dashboard.display.boundary import show_expected
from dashboard.display.text import file_size, plain
from dashboard.frame.job_status import log
from dashboard.session import launched, problems
from dashboard.session.launched import LaunchedSource
from dashboard.session.measure_form import SOURCE, UNITS
from dashboard.session.problems import CSV, START

COLUMN_PX = 300
NAMED = (
    "An ONNX file can be uploaded. To measure your own PyTorch model, name its function when you "
    "start the dashboard: `python -m dashboard path/to/file.py:function`. It runs with your rights, "
    "so it cannot be uploaded."
)
UPLOADED = LaunchedSource(upload.CHOICE, "An ONNX file (upload)")


def draw(found: tuple[Job, ...]) -> None:
    """The form, and what a dry run of it found."""
    grid = st.grid(2, min_column_width=COLUMN_PX, gap="medium")
    with grid.container(gap="small"):
        source = _source()
        if source.takes_csv:
            _csv(source)
    with grid.container(gap="small"):
        _precisions()
    if source is UPLOADED:
        upload.draw(COLUMN_PX)
    options.draw()
    asked = actions.request(source)
    _buttons(asked, found)
    problems.show(START)
    _prediction(actions.prediction(asked, found))


def _source() -> LaunchedSource:
    offers = {**launched.sources(), UPLOADED.reference: UPLOADED}
    chosen = st.selectbox(
        "Model to measure",
        list(offers),
        format_func=lambda reference: offers[reference].title,
        key=SOURCE,
        persist_state="session",
        help=NAMED,
    )
    return offers[chosen or next(iter(offers))]


def _csv(source: LaunchedSource) -> None:
    st.file_uploader(
        f"Your own prices (CSV, at most {MAX_MB} MB; optional)",
        type="csv",
        key=UPLOADER,
        max_upload_size=MAX_MB,
        on_change=actions.take_csv,
        args=(source,),
        help="Columns open, high, low, close, volume and, if you like, timestamp. Larger files: "
        "`analyze sample:informer --csv FILE` on the command line.",
    )
    problems.show(CSV)
    given = actions.given()
    if given is None:
        st.caption("Without a file the sample's own data are used.")
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        rows = f"{given.rows:,} row{'' if given.rows == 1 else 's'}"
        st.caption(f"Measured with {plain(given.name)}: {rows}.", width="content")
        st.button("Leave it out", on_click=actions.drop_csv, type="tertiary", key="_measure_drop")


def _precisions() -> None:
    st.markdown(":small[Precisions to measure]")
    with st.container(horizontal=True):
        for name in registry.simulated():
            one = registry.get(name)
            st.checkbox(
                name,
                value=name in registry.FIRST_VISIT,
                key=actions.precision_key(name),
                persist_state="session",
                help=f"{one.meaning}.",
            )
    st.checkbox(
        "Take attention and feed-forward units apart",
        key=UNITS,
        persist_state="session",
        help="Every layer inside a unit is measured alone: more layers, more time.",
    )


def _buttons(asked: Request, found: tuple[Job, ...]) -> None:
    busy = next((job for job in found if job.running and job.request.source == asked.source), None)
    lacking, option = _lacking(asked), options.chosen().problem
    closed = (
        not asked.precisions
        or bool(lacking)
        or option is not None
        or (busy is not None and not busy.request.dry_run)
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Start",
            on_click=actions.start,
            args=(asked,),
            kwargs={"dry_run": False},
            type="primary",
            icon=":material/play_arrow:",
            disabled=closed,
            key="_measure_start",
            help="Measures every layer alone in a process of its own; the dashboard stays usable.",
        )
        st.button(
            "Predict time and size",
            on_click=actions.start,
            args=(asked,),
            kwargs={"dry_run": True},
            disabled=closed or busy is not None,
            key="_measure_predict",
            help="Loads the model and times one small batch; measures nothing.",
        )
        if not asked.precisions:
            st.caption("Choose a precision: against FP32 alone there is nothing to measure.")
        elif option is not None:
            st.caption(f":orange[:material/warning:] {plain(str(option))}")
        elif lacking:
            st.caption(lacking)
        elif busy is not None and not busy.request.dry_run:
            st.caption(f"{plain(busy.name)} measures this model already.")


def _lacking(asked: Request) -> str:
    """What of the files keeps the form from being sent; "" where nothing does."""
    if asked.source and asked.upload is None:
        bad = problems.of(CSV) is not None
        return "Mend the CSV, or take it out of the uploader." if bad else ""
    if asked.upload is None or "calibration" not in asked.upload.splits:
        return "Give an ONNX file and calibration arrays."
    bad = upload.problem() is not None
    return "Mend the files, or take them out of their uploaders." if bad else ""


def _prediction(job: Job | None) -> None:
    if job is None or job.running:
        return
    if job.error is not None:
        show_expected(job.error)
        log(job)
        return
    plan = job.result
    if plan is None:  # stopped
        return
    st.info(_in_words(plan), icon=":material/schedule:")


def _in_words(plan: dict[str, object]) -> str:
    def counted(key: str) -> str:
        value = plan.get(key)
        return count(value, key.removesuffix("s")) if isinstance(value, int) else f"{UNKNOWN} {key}"

    seconds, size = plan.get("predicted_seconds"), plan.get("perturbation_bytes")
    time = (
        f"about {duration(max(seconds, 1.0))} on an idle machine"
        if isinstance(seconds, int | float)
        else f"time {UNKNOWN}"
    )
    room = file_size(size) if isinstance(size, int | float) else UNKNOWN
    outputs = plan.get("outputs", UNKNOWN)
    adds = plan.get("adds_seconds")
    each = (
        ", ".join(f"{plain(name)} {duration(took)}" for name, took in adds.items())
        if isinstance(adds, dict)
        else UNKNOWN
    )
    look = plan.get("first_look_seconds")
    soon = f"A first look is there after {duration(look)}.  \n" if isinstance(look, float) else ""
    return (
        f"**Predicted: {time}**, {room} of changed outputs on disk.  \n"
        f"Of it for each precision: {each}.  \n"
        f"{soon}{counted('layers')}, {counted('runs')} over {counted('samples')}; outputs "
        f"of a sample: {plain(str(outputs))}. The time is estimated from the processor "
        f"time of one small batch."
    )
