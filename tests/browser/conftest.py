"""One server and one Chromium per session, a fresh context per test, no console errors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from core.analysis import store
from core.layers import TensorSpec
from tests.browser.server import chromium, launch, serving, settle
from tests.core.synthetic import synthetic_analysis

EXPECTED_404 = ("/_stcore/health", "/_stcore/host-config")
"""Streamlit asks for these below a page's own path first, and logs the two misses."""

Visit = Callable[..., Page]

expect.set_options(timeout=20_000)  # two servers and two browsers share the cores


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium; without it the suite is skipped, in CI it fails."""
    if chromium() is None:
        reason = "no Chromium on this machine"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        started = launch(playwright)
        yield started
        started.close()


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """A dashboard on the bundled samples; the Informer opens first."""
    with serving() as started:
        yield started


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A dashboard on a made-up model of 2,000 layers, and on one of some hundred bytes."""
    folder, least = (tmp_path_factory.mktemp("large") / n for n in ("layers-2000", "least"))
    store.save(synthetic_analysis(2000, samples=30), folder)
    few = synthetic_analysis(2, samples=30)
    layers = tuple(
        replace(x, tensors=(TensorSpec(f"{x.name}.weight", (8, 8), "weight", 8),))
        for x in few.layers
    )
    store.save(replace(few, layers=replace(few.layers, layers=layers)), least)
    with serving(folder, least) as started:
        yield started


def _is_expected(message: ConsoleMessage) -> bool:
    return "404" in message.text and message.location["url"].endswith(EXPECTED_404)


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    """Open a path of the dashboard in a new context; fails on console errors at the end."""
    errors: list[str] = []
    contexts = []

    def opened(
        path: str = "/", *, scheme: str = "light", width: int = 1440, height: int = 1000
    ) -> Page:
        context = browser.new_context(
            color_scheme="dark" if scheme == "dark" else "light",
            viewport={"width": width, "height": height},
            reduced_motion="reduce",  # animations take a fifth of what opening a page does
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: errors.append(m.text)
                if m.type == "error" and not _is_expected(m) else None)  # fmt: skip
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(path if path.startswith("http") else address + path)
        settle(page)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == []
