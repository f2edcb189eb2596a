"""What only a browser shows: keyboard, the grid, links."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visit
from tests.browser.controls import kpi, kpis, press, slider
from tests.browser.server import settle

pytestmark = pytest.mark.browser

ROW_PX = 33


def override_first_layer(page: Page, precision: str) -> None:
    """Choose a precision in the first row of the table, a canvas, by keyboard."""
    table = page.get_by_test_id("stDataFrame").last
    table.scroll_into_view_if_needed()
    heads = table.locator("[role=columnheader]")
    heads.filter(has_text="Override").wait_for(state="attached")
    titles = heads.all_inner_texts()
    table.locator(".dvn-scroller").click(position={"x": 60, "y": ROW_PX * 1.5})
    for _ in range(titles.index("Override")):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.locator("#portal").get_by_text(precision, exact=True).click()


def test_a_slider_moved_by_keyboard_flips_layers(visit: Visit) -> None:
    """Arrow keys on a threshold change the KPIs, and the flipped layers are listed."""
    page = visit("/tune")
    page.keyboard.press("Alt+p")
    expect(page.get_by_text("no layer differs").first).to_be_visible()
    before = kpi(page, "Size").inner_text()

    press(page, slider(page, "HIGH from score"), "ArrowRight", 15)

    expect(kpi(page, "Size")).not_to_have_text(before)
    expect(page.get_by_text(re.compile(r"layers? → INT8")).first).to_be_visible()
    expect(page.get_by_text("Flipped layers")).to_be_visible()


def test_an_override_survives_a_page_switch(visit: Visit) -> None:
    """A precision chosen in the grid reaches the KPIs and stays when pages are changed."""
    page = visit("/tune")
    before = kpi(page, "Layers").inner_text()

    override_first_layer(page, "FP32")
    expect(kpi(page, "Layers")).not_to_have_text(before)
    after = kpis(page)
    page.get_by_role("link", name="Overview").click()
    expect(page.get_by_text("Recommended strategy by use")).to_be_visible()
    page.get_by_role("link", name="Tune").click()
    expect(page.get_by_text("Score of each layer")).to_be_visible()
    settle(page)

    assert kpis(page) == after
    assert "overrides=" in page.url


def test_a_copied_link_restores_the_view(visit: Visit) -> None:
    """The link of one browser opens to the same figures in another."""
    page = visit("/tune")
    before = kpi(page, "Size").inner_text()
    press(page, slider(page, "HIGH from score"), "End", 1)
    expect(kpi(page, "Size")).not_to_have_text(before)
    page.get_by_role("button", name="Copy link").click()
    link = page.get_by_test_id("stPopoverBody").get_by_test_id("stCode").inner_text().strip()

    copy = visit(link)

    assert "/tune" in link
    assert kpis(copy) == kpis(page)
    expect(slider(copy, "HIGH from score")).to_have_value("1")


def test_undo_and_redo_by_keyboard_and_a_reload(visit: Visit) -> None:
    """Alt+Z takes a slider back, Alt+Y moves it again; the address carries the policy, so F5 loses
    nothing of it.
    """
    page = visit("/")
    before = kpi(page, "Size").inner_text()
    press(page, slider(page, "HIGH from score"), "End", 1)
    expect(kpi(page, "Size")).not_to_have_text(before)
    moved = kpi(page, "Size").inner_text()

    expect(page.get_by_role("button", name="Undo")).to_be_enabled()
    page.keyboard.press("Alt+z")
    expect(kpi(page, "Size")).to_have_text(before)
    expect(page.get_by_role("button", name="Redo")).to_be_enabled()
    page.keyboard.press("Alt+y")
    expect(kpi(page, "Size")).to_have_text(moved)
    settle(page)

    page.reload()
    settle(page)
    expect(kpi(page, "Size")).to_have_text(moved)


def test_thresholds_do_not_cross(visit: Visit) -> None:
    """MEDIUM follows HIGH when HIGH is moved below it."""
    page = visit("/")

    press(page, slider(page, "HIGH from score"), "Home", 1)

    expect(slider(page, "MEDIUM from score")).to_have_value("0")


def test_a_nonsense_link_opens_and_says_so(visit: Visit) -> None:
    """Nonsense in the address gives the defaults and a notice of what was ignored."""
    plain = kpis(visit("/"))

    page = visit("/?high_at=banana&strategy=42&pins=%3Cscript%3E&hardware=toaster&w_theory=nan")

    expect(page.get_by_test_id("stToast")).to_contain_text("hardware, high_at, pins")
    assert kpis(page) == plain
    assert "banana" not in page.url
