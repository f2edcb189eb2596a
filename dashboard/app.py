"""Entrypoint: navigation, sidebar, verdict strip, page; every part in the error boundary."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.app_pages.measure import job_list
from dashboard.display import theme
from dashboard.display.boundary import boundary
from dashboard.frame import brand, sidebar, verdict
from dashboard.session import state, studies, view
from dashboard.session.view import View

NOTICE_SECONDS = 20
SIDEBAR_PX = 340
VERDICT_PX = 320
HEAD_START_S = 0.04


@contextmanager
def _loading(frame: DeltaGenerator, *, first: bool) -> Iterator[None]:
    """Hold the place of the verdict while a model is read; a quick one shows nothing of it.

    The place is there in every run: were it only in the first, the next would draw the KPI row one
    place higher, and both rows would stand on the page until that run ends.
    """
    place = frame.empty()
    if not first:
        yield
        return
    with place.skeleton(height=VERDICT_PX):
        yield


def _send_ahead(shown: View, before: View | None) -> None:
    """Let new figures reach the browser before the rest of the page is made.

    The server sends from another thread, which gets hardly a turn while this one computes: without
    a pause the figures arrive with the whole page, 40 to 60 ms later.
    """
    asked = (shown.opened.key, shown.policy)
    if before is None or (before.opened.key, before.policy) != asked:
        time.sleep(HEAD_START_S)


def main() -> None:
    """One run of the script."""
    st.set_page_config(
        page_title="Quantscape",
        page_icon=brand.icon(),
        layout="wide",
        initial_sidebar_state=SIDEBAR_PX,
    )
    st.logo(brand.logo(theme.current()), size="large")
    tab = state.session()
    page = st.navigation(
        [
            st.Page("app_pages/overview/page.py", title="Overview", icon=":material/landscape:",
                    url_path="overview", default=True, help="Is INT8 a good idea here?"),
            st.Page("app_pages/measure/page.py", title="Measure", icon=":material/science:",
                    url_path="measure", help="Measure a model, beside everything else"),
            st.Page("app_pages/tune/page.py", title="Tune", icon=":material/tune:",
                    url_path="tune", help="Move it and see what flips"),
            st.Page("app_pages/compare/page.py", title="Compare", icon=":material/compare:",
                    url_path="compare", help="Which strategy should I ship?"),
            st.Page("app_pages/verify/page.py", title="Verify", icon=":material/verified:",
                    url_path="verify", help="Does it hold on a real runtime?"),
            st.Page("app_pages/export/page.py", title="Export", icon=":material/download:",
                    url_path="export", help="Give me the file"),
            st.Page("app_pages/method/page.py", title="Method", icon=":material/functions:",
                    url_path="method", help="What these numbers mean"),
        ],
        position="top",
    )  # fmt: skip
    frame, shown, before = st.container(), None, None
    with st.sidebar, boundary("the sidebar"):
        entry = sidebar.choose_model()
        with _loading(frame, first=entry.name != tab.model):
            opened = studies.open_entry(entry)
            known = state.begin(opened)
            problems = state.settle(opened, known)
            settled = state.values_of(known)
            before, shown = view.previous(), view.build(opened)
        sidebar.model_line(opened.study)
    if shown is not None:
        with frame, boundary("the verdict"):  # before the controls: figures are what one waits for
            verdict.draw(shown)
            _send_ahead(shown, before)
        with st.sidebar, boundary("the sidebar"):
            sidebar.draw(shown, known, problems)
            state.confirm(known, settled)
    if page.title not in {"Measure", "Verify"}:
        with frame, boundary("the progress"):
            job_list.line()
    while tab.notices:
        st.toast(tab.notices.pop(0), icon=":material/info:", duration=NOTICE_SECONDS)
    if shown is None:
        st.info("Choose another model in the sidebar, or open Measure or Method.",
                icon=":material/info:")  # fmt: skip
        if page.title not in {"Measure", "Method"}:
            return
    with boundary(f"the page {page.title}"):
        page.run()


main()
