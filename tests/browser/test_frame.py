"""What stands around every page: keyboard, history, themes, colour vision, a lost connection."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from core.analysis import store
from core.records import user_folders
from dashboard.display.theme import DARK, LIGHT
from dashboard.frame import job_status
from tests.browser.conftest import Visit
from tests.browser.controls import chart, kpi, kpis, press, scroll_to, slider
from tests.browser.pictures import common_colours, pixels
from tests.browser.server import free_port, settle, wait_until_up
from tests.conftest import REPOSITORY
from tests.core.synthetic import synthetic_analysis
from tests.dashboard.test_theme import delta_e, lab, linear

pytestmark = pytest.mark.browser

STRIP = "Layers in execution order"
FOCUSED = """() => {
  const e = document.activeElement;
  return (e.getAttribute('aria-label') || e.innerText || e.tagName).trim();
}"""

FIRST_SCREEN = 24
"""Presses of Tab that stay on the first screen."""
VISIONS = {"achromatopsia": 10, "protanopia": 20, "deuteranopia": 20, "tritanopia": 20}
"""Impaired vision -> the least distance of two fills that it must leave (CIELAB)."""


@pytest.mark.parametrize("width", [900, 1180, 1440])
def test_a_figure_of_the_row_is_not_cut_off(width: int, visit: Visit, large: str) -> None:
    """A size of some hundred bytes has six decimals, and its card room for them."""
    page = visit(f"{large}/?model=least&strategy=uniform&uniform=INT8", width=width)
    cut = page.evaluate("""() => [...document.querySelectorAll('[data-testid="stMetricValue"]')]
        .flatMap(e => [e, ...e.querySelectorAll('*')])
        .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.innerText)""")

    expect(kpi(page, "Size")).to_have_text(re.compile(r"^0\.000\d{3} MB$"))
    assert cut == []


def test_tab_reaches_everything_in_the_sidebar_and_shows_where_it_is(visit: Visit) -> None:
    """Tab goes through model, actions, strategy, thresholds, precisions and hardware in this order, and whatever
    it reaches in the first screen looks different with the focus than without.
    """
    page = visit("/")
    page.keyboard.press("Tab")
    reached, invisible = [], []
    for step in range(45):
        reached.append(page.evaluate(FOCUSED))
        if step < FIRST_SCREEN and not _shows_focus(page):
            invisible.append(reached[-1])
        page.keyboard.press("Tab")

    wanted = ["Model", "Pin", "Reset", "Copy link", "thresholds", "HIGH from score",
              "MEDIUM from score", "HIGH to", "FP32", "Scorer weights",
              "Pins, overrides, further budgets", "Hardware", "Overview", "Tune", "Verify"]  # fmt: skip
    places = [
        next((i for i, text in enumerate(reached) if title in text.split("\n")), -1)
        for title in wanted
    ]
    assert -1 not in places, dict(zip(wanted, places, strict=True))
    assert places == sorted(places)
    assert invisible == []


def _shows_focus(page: Page) -> bool:
    """Whether what has the focus looks different without it; it has it again afterwards."""
    box = page.evaluate(
        """() => {
          let e = document.activeElement;
          while (e.getBoundingClientRect().width < 12) e = e.parentElement;
          const b = e.getBoundingClientRect();
          return {x: b.x - 6, y: b.y - 6, width: b.width + 12, height: b.height + 12};
        }"""
    )
    clip = {**box, "x": max(box["x"], 0), "y": max(box["y"], 0)}
    with_focus = pixels(page.screenshot(clip=clip, animations="disabled"))
    page.evaluate("() => { window.last = document.activeElement; window.last.blur(); }")
    without = pixels(page.screenshot(clip=clip, animations="disabled"))
    page.evaluate("() => window.last.focus({focusVisible: true})")
    return not bool((with_focus == without).all())


def test_back_and_forward_change_pages_and_keep_the_policy(visit: Visit) -> None:
    """The browser's Back and Forward go from page to page under the same policy."""
    page = visit("/")
    before = kpi(page, "Size").inner_text()
    press(page, slider(page, "HIGH from score"), "End", 1)
    expect(kpi(page, "Size")).not_to_have_text(before)
    moved = kpis(page)
    page.get_by_role("link", name="Tune").click()
    expect(page.get_by_text("Score of each layer")).to_be_visible()
    settle(page)

    page.go_back()
    expect(page.get_by_text("Recommended strategy by use")).to_be_visible()
    settle(page)
    assert kpis(page) == moved
    page.go_forward()
    expect(page.get_by_text("Score of each layer")).to_be_visible()
    settle(page)
    assert kpis(page) == moved
    expect(slider(page, "HIGH from score")).to_have_value("1")


def test_the_theme_can_change_while_a_page_is_open(visit: Visit) -> None:
    """The page turns dark at once, and with the next move charts have the dark colours."""
    page = visit("/", scheme="light")
    before = kpi(page, "Size").inner_text()
    page.emulate_media(color_scheme="dark")
    background = "e => getComputedStyle(e).backgroundColor"
    expect(page.get_by_test_id("stApp")).to_have_css("background-color", "rgb(23, 22, 20)")
    assert page.get_by_test_id("stApp").evaluate(background) == "rgb(23, 22, 20)"

    press(page, slider(page, "HIGH from score"), "End", 1)
    expect(kpi(page, "Size")).not_to_have_text(before)
    settle(page)

    fills = {
        path.get_attribute("fill") for path in chart(page, STRIP).locator("g.mark-rect path").all()
    }
    assert DARK.of("INT8").fill in fills
    assert LIGHT.of("INT8").fill not in fills


def test_forced_colours_leave_figures_and_labels(visit: Visit) -> None:
    """In forced colours the KPI row, the sentence and the labels of the strip are still there."""
    page = visit("/")
    page.emulate_media(forced_colors="active")

    expect(kpi(page, "Size")).to_be_visible()
    labels = chart(page, STRIP).locator("g.mark-text text").all_text_contents()
    assert {"8", "16"} <= set(labels)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_precisions_stay_apart_for_every_eye(scheme: str, visit: Visit) -> None:
    """Seen through Chromium's simulations, FP16 and INT8 in the strip differ in colour, and they
    carry labels.
    """
    page = visit("/", scheme=scheme)
    session = page.context.new_cdp_session(page)
    scroll_to(page, chart(page, STRIP))
    look = DARK if scheme == "dark" else LIGHT
    labels = chart(page, STRIP).locator("g.mark-text text").all_text_contents()
    assert {"8", "16"} <= set(labels)
    apart, grey = {}, True
    for vision in VISIONS:
        session.send("Emulation.setEmulatedVisionDeficiency", {"type": vision})
        seen = [_seen(page, look.of(name).fill) for name in ("FP16", "INT8")]
        first, second = (lab(linear("#{:02x}{:02x}{:02x}".format(*colour))) for colour in seen)
        apart[vision] = delta_e(first, second)
        grey = grey and (vision != "achromatopsia" or all(np.ptp(c) <= 2 for c in seen))

    assert {vision for vision in VISIONS if apart[vision] < VISIONS[vision]} == set(), apart
    assert grey


def _seen(page: Page, fill: str) -> tuple[int, ...]:
    """The colour on screen of the widest bar of the strip that is drawn in `fill`."""
    bars = chart(page, STRIP).locator(f"g.mark-rect path[fill='{fill}']").all()
    widest = max(bars, key=lambda bar: (bar.bounding_box() or {"width": 0})["width"])
    return common_colours(pixels(widest.screenshot()), 1)[0]


def test_what_ends_elsewhere_appears_without_a_reload(visit: Visit) -> None:
    """An analysis that another tab or a command leaves joins the model select of an open page, and
    one that is removed leaves it.
    """
    page = visit("/?high_at=0.8")
    folder = user_folders.jobs_folder() / "elsewhere-run-1"
    store.save(synthetic_analysis(5, samples=20), folder / "analysis")
    select, option = page.get_by_role("combobox", name="Model").first, "elsewhere-run-1"
    try:
        page.wait_for_timeout(1.5 * 1000 * job_status.WATCH_EVERY_S)
        select.click()
        expect(page.get_by_role("option", name=option)).to_be_visible()
        page.get_by_role("option", name=option).click()
        expect(page.get_by_test_id("stSidebar").get_by_text("5 layers")).to_be_visible()
    finally:
        shutil.rmtree(folder)
    expect(page.get_by_test_id("stSidebar").get_by_text("5 layers")).to_have_count(0)
    expect(slider(page, "HIGH from score")).to_have_value("0.8")


def test_a_lost_connection_loses_nothing(browser: Browser, tmp_path: Path) -> None:
    """When the server goes away the page says so; when it is back the policy is as it was."""
    port = free_port()
    command = [sys.executable, "-m", "dashboard", f"--port={port}"]
    address = f"http://localhost:{port}"

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until_up(address, process)
        return process

    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    server = start()
    try:
        page.goto(address)
        settle(page)
        before = kpi(page, "Size").inner_text()
        press(page, slider(page, "HIGH from score"), "End", 1)
        expect(kpi(page, "Size")).not_to_have_text(before)
        moved = kpis(page)
        server.kill()
        server.wait()
        expect(page.get_by_test_id("stConnectionStatus").or_(
            page.get_by_text(re.compile("[Cc]onnecti(on|ng)"))
        ).first).to_be_visible(timeout=20_000)  # fmt: skip
        assert kpis(page) == moved
        server = start()
        expect(page.get_by_text(re.compile("[Cc]onnecti(on|ng)"))).to_have_count(0, timeout=60_000)
        settle(page)
        assert kpis(page) == moved
        expect(slider(page, "HIGH from score")).to_have_value("1")
    finally:
        server.kill()
        server.wait()
        page.close()


def test_a_move_never_shows_the_kpi_row_twice(visit: Visit) -> None:
    """The first move after a page opens replaces the figures; no second row stands beside them."""
    page = visit("/")
    page.evaluate(
        """() => {
            window.most = 0;
            const count = () => {
                const cards = document.querySelectorAll("[data-testid='stMetric']");
                const sizes = [...cards].filter(card => card.innerText.startsWith("Size"));
                window.most = Math.max(window.most, sizes.length);
            };
            const all = {subtree: true, childList: true, characterData: true};
            new MutationObserver(count).observe(document.body, all);
        }"""
    )
    before = kpi(page, "Size").first.inner_text()
    press(page, slider(page, "HIGH from score"), "End", 1)
    expect(kpi(page, "Size").first).not_to_have_text(before)
    settle(page)
    assert page.evaluate("window.most") == 1
