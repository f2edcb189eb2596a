"""Entrypoint: navigation, sidebar, verdict strip, page; every part in the error boundary."""

from __future__ import annotations

import streamlit as st

from dashboard import brand, sidebar, state, theme, verdict, view
from dashboard.boundary import boundary

NOTICE_SECONDS = 20
SIDEBAR_PX = 340


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
            st.Page("app_pages/overview.py", title="Overview", icon=":material/landscape:",
                    url_path="overview", default=True, help="Is INT8 a good idea here?"),
            st.Page("app_pages/tune.py", title="Tune", icon=":material/tune:",
                    url_path="tune", help="Move it and see what flips"),
            st.Page("app_pages/compare.py", title="Compare", icon=":material/compare:",
                    url_path="compare", help="Which strategy should I ship?"),
            st.Page("app_pages/method.py", title="Method", icon=":material/functions:",
                    url_path="method", help="What these numbers mean"),
        ],
        position="top",
    )  # fmt: skip
    frame, shown = st.container(), None
    with st.sidebar, boundary("the sidebar"):
        opened = sidebar.choose_model()
        known = state.begin(opened)
        problems = state.settle(opened, known)
        settled = state.values_of(known)
        shown = view.build(opened)
    if shown is not None:
        with frame, boundary("the verdict"):  # before the controls: figures are what one waits for
            verdict.draw(shown)
        with st.sidebar, boundary("the sidebar"):
            sidebar.draw(shown, known, problems)
            state.confirm(known, settled)
    while tab.notices:
        st.toast(tab.notices.pop(0), icon=":material/info:", duration=NOTICE_SECONDS)
    if shown is None:
        st.info("Choose another model in the sidebar, or open Method.", icon=":material/info:")
        if page.title != "Method":
            return
    with boundary(f"the page {page.title}"):
        page.run()


main()
