"""Measure: what does each layer of a model do, and how long will that take?"""

from __future__ import annotations

import streamlit as st

from core import jobs
from dashboard import job_view, measure_form
from dashboard.boundary import boundary


def page() -> None:
    """Draw the page; it needs no model on screen."""
    found = jobs.everything()
    with st.container(border=True, gap="small"), boundary("the form"):
        st.markdown("**Measure a model**")
        st.caption(
            "Every layer is measured alone in every chosen precision. It runs in a process of its "
            "own: leave this page, close the browser or the dashboard, and it goes on."
        )
        measure_form.draw(found)
    with boundary("the progress"):
        job_view.running(found)
    with boundary("the list of jobs"):
        job_view.over(found)


page()
