"""Jobs on screen: what runs, with a clock of its own, and what became of the others.

What runs is a fragment: it is drawn again every second without touching the rest of the page, so
that controls answer meanwhile. When a job ends, the page as a whole runs once.
"""

from __future__ import annotations

import streamlit as st

from core.errors import JobError
from core.jobs import jobs
from core.jobs.jobs import Job
from core.quantity import UNKNOWN, duration
from core.source.samples import PREFIX
from dashboard.app_pages.measure import actions
from dashboard.display.boundary import boundary, show_expected
from dashboard.display.text import plain
from dashboard.frame import job_status
from dashboard.session import problems
from dashboard.session.problems import JOBS

EVERY_S = 1.0
SHOWN = 8
"""Jobs that are over on one page: each has buttons, and many elements make every run slow."""

BADGES = {
    "done": ":green-badge[:material/check: Done]",
    "stopped": ":gray-badge[:material/pause: Stopped]",
    "failed": ":red-badge[:material/error: Failed]",
}
AGAIN = {"done": "Measure again", "stopped": "Resume", "failed": "Try again"}


def running(found: tuple[Job, ...]) -> None:
    """Jobs that run, followed second by second."""
    names = tuple(job.name for job in found if job.running and not job.request.verify)
    if names:
        st.fragment(_running, run_every=EVERY_S)(names)


def _running(names: tuple[str, ...]) -> None:
    actions.look()
    with boundary("the progress"):
        found = [job for job in jobs.everything() if job.running and not job.request.verify]
        if tuple(job.name for job in found) != names:
            st.rerun()
        for job in found:
            with st.container(border=True, gap="xsmall"):
                _title(job)
                job_status.bar(job)
                _said(job)
                with st.container(horizontal=True):
                    _open(job)
                    job_status.stop(job)


def over(found: tuple[Job, ...]) -> None:
    """Measurements that are over, the newest first."""
    problems.show(JOBS)
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


def left_out(bad: tuple[JobError, ...]) -> None:
    """Jobs that cannot be read, each with what is wrong."""
    for error in bad[:SHOWN]:
        st.caption(f":orange[Left out:] {plain(str(error))}")


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
        job_status.log(job)
    _buttons(job)


def _said(job: Job) -> None:
    """What the command itself said on its way: finished layers found again, a cache in trouble."""
    if job.notes:
        st.caption(plain(" ".join(job.notes)))


def _buttons(job: Job) -> None:
    with st.container(horizontal=True):
        _open(job)
        job_status.again(job, AGAIN[job.state])
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
    st.button(
        "Open it" if partial is None else "Open what is measured",
        on_click=actions.choose,
        args=(job,),
        type="primary" if not job.running else "secondary",
        key=f"_open_{job.name}",
        help="Make it the model on screen."
        if partial is None
        else f"Make it the model on screen: {partial.in_words()}.",
    )


def _done(job: Job) -> str:
    result = job.result or {}
    counts = (
        f"{_count(result.get('layers'), 'layer')} over {_count(result.get('samples'), 'sample')}"
    )
    said = result.get("notes")
    notes = "".join(f" {plain(str(note))}" for note in said) if isinstance(said, list) else ""
    partial = actions.partial_of(job)
    far = "" if partial is None else f" ({plain(partial.in_words())})"
    return f"{counts}{far}, measured in {duration(job.elapsed)}.{notes}"


def _count(value: object, what: str) -> str:
    if not isinstance(value, int):
        return f"{UNKNOWN} {what}s"
    return f"{value:,} {what}{'' if value == 1 else 's'}"


def _title(job: Job) -> None:
    asked = job.request
    what = asked.source if asked.source.startswith(PREFIX) else asked.source.rpartition("/")[2]
    rounded = asked.scheme, asked.calibrator, asked.quantizer, asked.until
    parts = [what, ", ".join(asked.precisions), asked.csv, *rounded]
    st.markdown(
        f"**{plain(job.name)}** {BADGES.get(job.state, '')} "
        f":small[{plain(' · '.join(filter(None, parts)))}]"
    )
