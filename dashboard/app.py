"""Entrypoint: navigation, sidebar, verdict strip, page; every part in the error boundary."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.display import theme
from dashboard.display.boundary import boundary
from dashboard.frame import brand, job_status, sidebar, strip, verdict
from dashboard.pages import PAGES, Page
from dashboard.session import browser_store, state, studies, view
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


def _send_figures(shown: View, before: View | None) -> None:
    """Let new figures reach the browser before the rest of the page is made.

    The server sends from another thread, which gets hardly a turn while this one computes: without
    a pause the figures arrive with the whole page, 40 to 60 ms later.
    """
    asked = (shown.opened.key, shown.policy)
    if before is None or (before.opened.key, before.policy) != asked:
        time.sleep(HEAD_START_S)


def _navigation() -> tuple[Page, Callable[[], None]]:
    """The page on screen, and what draws it."""
    found = st.navigation(
        [
            st.Page(page.script, title=page.title, icon=page.icon, url_path=page.name,
                    default=page.is_first, help=page.help)
            for page in PAGES.values()
        ],
        position="top",
    )  # fmt: skip
    (page,) = (page for page in PAGES.values() if page.title == found.title)
    return page, found.run


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
    page, run = _navigation()
    frame, entry, shown, before = st.container(), None, None, None
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
            _send_figures(shown, before)
        with st.sidebar, boundary("the sidebar"):
            sidebar.draw(shown, known, problems)
            state.confirm(known, settled)
            browser_store.sync(shown.opened)
    with frame, boundary("the progress"):
        if not page.shows_jobs:
            job_status.line()
        if entry is not None:
            job_status.watch(entry)
    while tab.notices:
        st.toast(tab.notices.pop(0), icon=":material/info:", duration=NOTICE_SECONDS)
    if shown is None:
        others = " or ".join(page.title for page in PAGES.values() if page.needs == "nothing")
        st.info(f"Choose another model in the sidebar, or open {others}.", icon=":material/info:")
    with boundary(f"the page {page.title}"):
        if page.needs == "layers" and shown is not None and not len(shown.study.layers):
            strip.empty(shown)
        elif page.needs == "nothing" or shown is not None:
            run()


main()
