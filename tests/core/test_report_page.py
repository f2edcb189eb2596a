"""The HTML report in a real browser, offline."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from pathlib import Path
from typing import TypeVar, cast

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from core.decide import answer
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.export.report.html import to_html
from tests.browser.server import chromium, launch
from tests.core.hostile import EVIL, named
from tests.core.synthetic import synthetic_analysis

STUDY = Study(synthetic_analysis(40, samples=100))

THREAD = ThreadPoolExecutor(1)
"""Playwright allows one of its loops per thread, and the dashboard's tests keep one open."""

Test = TypeVar("Test", bound=Callable[..., None])


def apart(test: Test) -> Test:
    """Run a test where the browser lives."""

    @wraps(test)
    def run(**given: object) -> None:
        THREAD.submit(test, **given).result()

    return cast("Test", pytest.mark.browser(run))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; without it these tests are skipped, in CI they fail."""
    if chromium() is None:
        if os.environ.get("CI") == "true":
            pytest.fail("Chromium is missing: sudo apt-get install chromium")
        pytest.skip("Chromium is missing: sudo apt-get install chromium")
    playwright = THREAD.submit(lambda: sync_playwright().start()).result()
    opened = THREAD.submit(launch, playwright).result()
    yield opened
    THREAD.submit(opened.close).result()
    THREAD.submit(playwright.stop).result()


def _open(
    browser: Browser, folder: Path, study: Study, width: int = 1440, scheme: str = "light"
) -> Page:
    """The page from disk without a network; what it complains of or asks for is kept."""
    path = folder / "report.html"
    path.write_bytes(to_html(study, answer.decide(study, Policy())))
    context = browser.new_context(
        viewport={"width": width, "height": 900}, offline=True,
        color_scheme="dark" if scheme == "dark" else "light",
    )  # fmt: skip
    page = context.new_page()
    page.troubles = []  # type: ignore[attr-defined]
    page.on("console", lambda message: page.troubles.append(message.text))  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.troubles.append(str(error)))  # type: ignore[attr-defined]
    page.on("request", lambda request: page.troubles.append(request.url))  # type: ignore[attr-defined]
    page.goto(path.as_uri())
    return page


def _untroubled(page: Page) -> None:
    troubles = page.troubles  # type: ignore[attr-defined]
    assert [text for text in troubles if not text.startswith(("file:", "blob:"))] == []
    assert sum(text.startswith("file:") for text in troubles) == 1
    page.context.close()


@apart
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_the_page_opens_offline(browser: Browser, tmp_path: Path, width: int, scheme: str) -> None:
    """All figures are drawn, nothing is asked for, and the page does not scroll sideways."""
    page = _open(browser, tmp_path, STUDY, width, scheme)

    assert page.locator("#figure-strip svg rect[class^='p-']").count() >= 40
    assert page.locator("#figure-scores svg [class^='p-']").count() == 40
    assert page.locator("#figure-trade svg [data-strategy]").count() == 8
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(23, 22, 20)" if scheme == "dark" else "rgb(255, 255, 255)")
    _untroubled(page)


@apart
def test_the_table_sorts_and_filters_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    """Headings sort numbers as numbers in both directions; filters count what is left."""
    page = _open(browser, tmp_path, STUDY)
    head = page.locator("#table-layers thead button", has_text="bytes")
    column = page.locator("#table-layers tbody td:nth-child(11)")

    def sizes() -> list[int]:
        return [int(text.replace(",", "")) for text in column.all_inner_texts()]

    head.focus()
    page.keyboard.press("Enter")
    assert sizes() == sorted(sizes())
    assert page.locator("#table-layers th[aria-sort]").get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert sizes() == sorted(sizes(), reverse=True)

    page.locator("input[type=search]").fill("attention")
    shown = page.locator("#table-layers tbody tr:visible")
    expected = [name for name in STUDY.layers.names if "attention" in name]
    assert sorted(shown.locator("code").all_inner_texts()) == sorted(expected)
    assert page.locator(".count").inner_text() == f"{len(expected)} of 40 layers"
    page.get_by_label("Show precision").select_option("INT8")
    assert shown.count() == 0
    page.get_by_role("button", name="Show all").click()
    assert shown.count() == 40
    _untroubled(page)


@apart
def test_a_chosen_layer_is_chosen_everywhere(browser: Browser, tmp_path: Path) -> None:
    """Arrow keys on the strip choose a layer; the table and the chart follow."""
    page = _open(browser, tmp_path, STUDY)
    strip = page.get_by_role("slider")
    strip.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")

    name = STUDY.layers.names[2]
    assert page.locator("#figure-strip .detail strong").inner_text() == name
    assert name in (strip.get_attribute("aria-valuetext") or "")
    assert page.locator("#table-layers tr.chosen code").inner_text() == name
    assert page.locator("#figure-scores .selected").count() == 1
    page.get_by_role("button", name="Show in the table").click()
    assert page.locator("#table-layers tr.chosen").evaluate("row => row === document.activeElement")
    _untroubled(page)


@apart
def test_figures_give_their_data(browser: Browser, tmp_path: Path) -> None:
    """The CSV of a figure holds its data, and text that a spreadsheet would run is quoted."""
    study = named("=cmd()")
    page = _open(browser, tmp_path, study)
    with page.expect_download() as started:
        page.locator("#figure-scores button", has_text="Download").click()
    rows = list(csv.DictReader(io.StringIO(started.value.path().read_text("utf-8"))))

    assert [row["name"] for row in rows] == ["'=cmd()", *study.layers.names[1:]]
    chosen = answer.decide(study, Policy())
    assert [float(row["score"]) for row in rows] == [float(score) for score in chosen.scores]
    with page.expect_download() as started:
        page.locator("#figure-trade button", has_text="Download").click()
    strategies = list(csv.DictReader(io.StringIO(started.value.path().read_text("utf-8"))))
    assert strategies[0]["strategy"] == "This map"
    assert float(strategies[0]["size_bytes"]) == page.evaluate(
        "JSON.parse(document.getElementById('data').textContent).strategies[0].size_bytes.value"
    )
    _untroubled(page)


@apart
@pytest.mark.parametrize("study", [
    Study(synthetic_analysis(0, samples=5)), Study(synthetic_analysis(1, measured=False)),
    named(EVIL), Study(synthetic_analysis(2000, samples=5)),
], ids=["empty", "unmeasured", "evil", "large"])  # fmt: skip
@pytest.mark.slow
def test_odd_models_open_without_errors(browser: Browser, tmp_path: Path, study: Study) -> None:
    """No layers, no measurements, hostile names and two thousand layers."""
    page = _open(browser, tmp_path, study)

    assert page.locator("#table-layers tbody tr").count() == len(study.layers)
    for value in ("size", "macs", "score", "latency_ms", "kl"):
        page.locator(f"input[type=radio][value={value}]").check()
    if study.analysis.evidence is None:
        assert "n/a" in (page.locator("#figure-trade svg").text_content() or "")
    _untroubled(page)
