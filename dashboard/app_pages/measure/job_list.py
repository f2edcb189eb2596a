"""Jobs on screen: what runs, with a clock of its own, and what became of the others.

What runs is a fragment: it is drawn again every second without touching the rest of the page, so
that controls answer meanwhile. When a job ends, the page as a whole runs once.
"""

from __future__ import annotations

import streamlit as st

from core.jobs import jobs
from core.jobs.jobs import Job
from core.source.samples import PREFIX
from dashboard.app_pages.measure import actions
from dashboard.app_pages.measure.actions import JOBS
from dashboard.display.boundary import boundary, show_expected
from dashboard.display.text import UNKNOWN, plain
from dashboard.pages import PAGES
from dashboard.session import state, uploads

EVERY_S, LINE_EVERY_S = 1.0, 2.0
SHOWN = 8
"""Jobs that are over on one page: each has buttons, and many elements make every run slow."""

BADGES = {
    "done": ":green-badge[:material/check: Done]",
    "stopped": ":gray-badge[:material/pause: Stopped]",
    "failed": ":red-badge[:material/error: Failed]",
}
AGAIN = {"done": "Measure again", "stopped": "Resume", "failed": "Try again"}


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes < 10 and rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def how_far(job: Job) -> str:
    """Layer, count, time so far and time left of a running job."""
    if not job.total:
        what = "loading the model" if not job.request.dry_run else "predicting time and size"
        return f"{what} · {duration(job.elapsed)} so far"
    left = "" if job.left is None else f" · about {duration(max(job.left, 1.0))} left"
    return (
        f"{job.done:,} of {job.total:,} · {plain(job.label)} · {duration(job.elapsed)} so far{left}"
    )


def running(found: tuple[Job, ...]) -> None:
    """Jobs that run, followed second by second."""
    names = tuple(job.name for job in found if job.running and not job.request.verify)
    if names:
        st.fragment(_running, run_every=EVERY_S)(names)


def _running(names: tuple[str, ...]) -> None:
    with boundary("the progress"):
        found = [job for job in jobs.everything() if job.running and not job.request.verify]
        if tuple(job.name for job in found) != names:
            st.rerun()
        for job in found:
            with st.container(border=True, gap="xsmall"):
                _title(job)
                share = job.done / job.total if job.total else 0.0
                st.progress(min(max(share, 0.0), 1.0), text=how_far(job))
                _said(job)
                with st.container(horizontal=True):
                    _open(job)
                    stop(job)


def stop(job: Job) -> None:
    """The button that ends a job."""
    st.button(
        "Stop",
        on_click=actions.stop,
        args=(job,),
        icon=":material/stop:",
        key=f"_stop_{job.name}",
        help="Ends its process. Its command can be started again.",
    )


def again(job: Job, title: str) -> None:
    """The button that runs a job's command again."""
    allowed = actions.allowed(job.request.source)
    st.button(
        title,
        on_click=actions.restart,
        args=(job,),
        disabled=not allowed,
        key=f"_again_{job.name}",
        help="Runs the same command in the same folder."
        if allowed
        else "This source was not named when the dashboard was started.",
    )


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


def over(found: tuple[Job, ...]) -> None:
    """Measurements that are over, the newest first."""
    error = uploads.problem(JOBS)
    if error is not None:
        show_expected(error)
    past = [
        job for job in found
        if not (job.running or job.request.dry_run or job.request.verify)
    ]  # fmt: skip
    if not past:
        return
    st.subheader("Measured before", anchor="measured")
    for job in past[:SHOWN]:
        with st.container(border=True, gap="xsmall"):
            _over(job)
    if len(past) > SHOWN:
        st.caption(f"{len(past) - SHOWN:,} earlier ones are not shown; remove some to see them.")


def _over(job: Job) -> None:
    _title(job)
    if job.state == "done":
        st.caption(_done(job))
    else:
        far = f"at {job.done:,} of {job.total:,} runs" if job.total else "before the first run"
        st.caption(f"{job.state.capitalize()} {far}, after {duration(job.elapsed)}.")
    _said(job)
    if job.error is not None:
        show_expected(job.error)
    if job.state == "failed":
        log(job)
    _buttons(job)


def _said(job: Job) -> None:
    """What the command itself said on its way: finished layers found again, a cache in trouble."""
    if job.notes:
        st.caption(plain(" ".join(job.notes)))


def _buttons(job: Job) -> None:
    with st.container(horizontal=True):
        _open(job)
        again(job, AGAIN[job.state])
        st.button(
            "Remove",
            on_click=actions.remove,
            args=(job,),
            type="tertiary",
            key=f"_remove_{job.name}",
            help="Deletes the job with its log and its analysis.",
        )


def _open(job: Job) -> None:
    """The way to a job's analysis, also to what a running or stopped one has measured so far."""
    if not job.has_analysis:
        return
    partial = actions.partial_of(job)
    if st.button(
        "Open it" if partial is None else "Open what is measured",
        on_click=actions.choose,
        args=(job,),
        type="primary" if not job.running else "secondary",
        key=f"_open_{job.name}",
        help="Make it the model on screen."
        if partial is None
        else f"Make it the model on screen: {partial.in_words()}.",
    ):
        st.switch_page(PAGES["overview"].script, query_params={})


def _done(job: Job) -> str:
    result = job.result or {}
    counts = (
        f"{_count(result.get('layers'), 'layer')} over {_count(result.get('samples'), 'sample')}"
    )
    notes = "".join(f" {plain(str(note))}" for note in result.get("notes", ()))
    return f"{counts}, measured in {duration(job.elapsed)}.{notes}"


def _count(value: object, what: str) -> str:
    if not isinstance(value, int):
        return f"{UNKNOWN} {what}s"
    return f"{value:,} {what}{'' if value == 1 else 's'}"


def _title(job: Job) -> None:
    asked = job.request
    what = asked.source if asked.source.startswith(PREFIX) else asked.source.rpartition("/")[2]
    parts = [what, ", ".join(asked.precisions), asked.csv, asked.scheme, asked.calibrator]
    st.markdown(
        f"**{plain(job.name)}** {BADGES.get(job.state, '')} "
        f":small[{plain(' · '.join(filter(None, parts)))}]"
    )


def log(job: Job) -> None:
    """The end of what the command printed, behind an expander."""
    tail = jobs.log_tail(job)
    if tail:
        with st.expander("End of the log", icon=":material/terminal:"):
            st.code(tail, language=None, wrap_lines=True)
