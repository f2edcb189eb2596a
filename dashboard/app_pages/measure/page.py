"""Measure: what does each layer of a model do, and how long will that take?"""

from __future__ import annotations

import streamlit as st

from core.jobs import jobs
from dashboard.app_pages.measure import actions, form, job_list
from dashboard.display.boundary import boundary


def page() -> None:
    """Draw the page; it needs no model on screen."""
    actions.look()
    found, bad = jobs.listed()
    with st.container(border=True, gap="small"), boundary("the form"):
        st.markdown("**Measure a model**")
        st.caption(
            "Every layer is measured alone in every chosen precision. It runs in a process of its "
            "own: leave this page, close the browser or the dashboard, and it goes on."
        )
        form.draw(found)
    with boundary("the progress"):
        job_list.running(found)
    with boundary("the list of jobs"):
        job_list.over(found)
        job_list.left_out(bad)


page()
