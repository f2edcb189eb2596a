"""A job on screen: how far it is, its buttons, its log, and a line for pages of other things."""

from __future__ import annotations

import streamlit as st

from core.jobs import jobs
from core.jobs.jobs import Job
from core.quantity import duration
from dashboard.display.boundary import boundary
from dashboard.display.text import plain
from dashboard.session import launched, problems, state, studies
from dashboard.session.problems import JOBS, START
from dashboard.session.studies import ModelEntry

LINE_EVERY_S = 2.0
WATCH_EVERY_S = 5.0


def how_far(job: Job) -> str:
    """Layer, count, time so far and time left of a running job."""
    if not job.total:
        what = "loading the model" if not job.request.dry_run else "predicting time and size"
        return f"{what} · {duration(job.elapsed)} so far"
    left = "" if job.left is None else f" · about {duration(max(job.left, 1.0))} left"
    return (
        f"{job.done:,} of {job.total:,} · {plain(job.label)} · {duration(job.elapsed)} so far{left}"
    )


def bar(job: Job) -> None:
    """The progress of a running job."""
    share = job.done / job.total if job.total else 0.0
    st.progress(min(max(share, 0.0), 1.0), text=how_far(job))


def stop(job: Job) -> None:
    """The button that ends a job."""
    st.button(
        "Stop",
        on_click=_stop,
        args=(job,),
        icon=":material/stop:",
        key=f"_stop_{job.name}",
        help="Ends its process. Its command can be started again.",
    )


def again(job: Job, title: str) -> None:
    """The button that runs a job's command again."""
    allowed = launched.allowed(job.request.source)
    st.button(
        title,
        on_click=_restart,
        args=(job,),
        disabled=not allowed,
        key=f"_again_{job.name}",
        help="Runs the same command in the same folder."
        if allowed
        else "This source was not named when the dashboard was started.",
    )


def watch(entry: ModelEntry) -> None:
    """Run the page again when analyses or jobs come or go elsewhere: in another tab, by a command.

    A fragment looks at folders now and then and draws nothing.
    """
    st.fragment(_watch, run_every=WATCH_EVERY_S)(entry, studies.on_disk(entry))


def _watch(entry: ModelEntry, seen: studies.OnDisk) -> None:
    with boundary("the look at other tabs"):
        if studies.on_disk(entry) != seen:
            st.rerun()


def line() -> None:
    """What runs, in one line for the pages that have other things to show."""
    names = tuple(job.name for job in jobs.everything() if job.running)
    if names:
        st.fragment(_line, run_every=LINE_EVERY_S)(names)


def _line(names: tuple[str, ...]) -> None:
    with boundary("the progress"):
        found = {job.name: job for job in jobs.everything()}
        over = [name for name in names if name not in found or not found[name].running]
        for name in over:
            if name in found and not found[name].request.dry_run:
                state.session().notices.append(_ended(found[name]))
        if over:
            st.rerun()
        for name in names:
            verifying = bool(found[name].request.verify)
            st.caption(
                f":material/science: {'Verifying' if verifying else 'Measuring'} {plain(name)}: "
                f"{how_far(found[name])}. {'Verify' if verifying else 'Measure'} has the rest."
            )


def _ended(job: Job) -> str:
    if job.request.verify:
        return f"Verifying {plain(job.name)}: {job.state}."
    if job.state == "done":
        return f"{plain(job.name)} is measured. It is in the model select."
    return f"{plain(job.name)}: {job.state}. Measure says more."


def _stop(job: Job) -> None:
    """Stop a job. Run from a callback."""
    with problems.attempt(JOBS):
        jobs.stop(job)


def _restart(job: Job) -> None:
    """Run a job's command again. Run from a callback."""
    problems.solve(START, JOBS)
    with problems.attempt(JOBS):
        launched.check_allowed(job.request.source)
        jobs.restart(job)


def log(job: Job) -> None:
    """The end of what the command printed, behind an expander."""
    tail = jobs.log_tail(job)
    if tail:
        with st.expander("End of the log", icon=":material/terminal:"):
            st.code(tail, language=None, wrap_lines=True)
