"""Verify: does the map do on a real runtime what is projected of it?"""

from __future__ import annotations

import streamlit as st

from core.analysis import store
from core.decide.assess.verified import verification_of
from core.jobs import jobs
from core.jobs.jobs import Job
from dashboard.app_pages.verify import actions, results
from dashboard.app_pages.verify.actions import AXIS, MOST_POINTS, POINTS, USUAL_POINTS
from dashboard.display.boundary import boundary, show_expected
from dashboard.display.text import plain
from dashboard.frame import job_status
from dashboard.session import problems
from dashboard.session.problems import VERIFY
from dashboard.session.view import View, current

EVERY_S = 1.0


def page() -> None:
    """Draw the page."""
    view = current()
    found = actions.of_model(jobs.everything(), view)
    with st.container(border=True, gap="small"), boundary("the buttons"):
        _start(view, any(job.running for job in found))
    with boundary("the progress"):
        _progress(view, found)
    run = verification_of(view.study, view.now.chosen)
    with st.container(border=True, gap="small"), boundary("this map"):
        if run is None:
            st.markdown("**This map was not run yet**")
            st.caption("Its figures are projected and estimated until it is verified.")
        else:
            results.this_map(view, run)
    with boundary("the residuals"):
        results.learnt(view)


def _start(view: View, busy: bool) -> None:
    st.markdown("**Run it on ONNX Runtime**")
    st.caption(
        "The map is built as an ONNX model, run on the holdout split and timed against FP32 on this "
        "machine, in a process of its own: sliders stay live, and it goes on when you leave. It "
        "proves nothing about other runtimes."
    )
    refused = actions.refusal(view)
    allowed = not refused and actions.can_run(view)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.button(
            "Verify this map",
            on_click=actions.this_map,
            args=(view,),
            type="primary",
            disabled=busy or not allowed,
            icon=":material/verified:",
        )
        st.button(
            "Verify the frontier",
            on_click=actions.the_frontier,
            args=(view,),
            disabled=busy or not allowed or view.study.projector is None,
            icon=":material/timeline:",
            help="Several maps of the least loss for their size or latency, one after the other.",
        )
        st.segmented_control("Frontier", ["size", "latency"], default="size", key=AXIS,
                             required=True)  # fmt: skip
        st.number_input("Maps", 2, MOST_POINTS, USUAL_POINTS, key=POINTS, width=110)
    if refused:
        st.info(refused, icon=":material/info:")
    elif not allowed:
        st.info(
            "This dashboard was not started with the model's own code. Start it with "
            "`python -m dashboard DIR path/to/file.py:function`, or verify on the command line: "
            f"`{actions.command(view)}`.",
            icon=":material/info:",
        )
    problems.show(VERIFY)


def _progress(view: View, found: tuple[Job, ...]) -> None:
    running = tuple(job.name for job in found if job.running)
    if running:
        stamp = store.stamp(actions.folder_of(view))
        st.fragment(_running, run_every=EVERY_S)(view, running, stamp)
    elif found and found[0].state != "done":
        job = found[0]
        with st.container(border=True, gap="xsmall"):
            st.markdown(
                f"**{plain(job.name)}**: {job.state} at {job.done:,} of {job.total:,} steps"
            )
            if job.error is not None:
                show_expected(job.error)
            if job.state == "failed":
                job_status.log(job)
            job_status.again(job, "Resume" if job.state == "stopped" else "Try again")


def _running(view: View, names: tuple[str, ...], stamp: tuple[int, int]) -> None:
    with boundary("the progress"):
        found = [j for j in actions.of_model(jobs.everything(), view) if j.running]
        if tuple(job.name for job in found) != names:
            st.rerun()
        if store.stamp(actions.folder_of(view)) != stamp:
            st.rerun()  # a map is done: its figures arrive while the others go on
        for job in found:
            with st.container(border=True, gap="xsmall"):
                st.markdown(f"**Verifying {len(job.request.maps)} "
                            f"map{'' if len(job.request.maps) == 1 else 's'}**")  # fmt: skip
                job_status.bar(job)
                job_status.stop(job)


page()
