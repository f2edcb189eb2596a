"""Budgets and the frontier as the mouse and the keyboard find them."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visit
from tests.browser.controls import chart, kpi, press, scroll_to, slider
from tests.browser.server import settle

pytestmark = pytest.mark.browser

FRONTIER = "Frontier of"


def frontier(page: Page, axis: str) -> None:
    """Wait until the frontier over `axis` is drawn."""
    expect(chart(page, FRONTIER).filter(has=page.locator("svg"))).to_have_attribute(
        "aria-label", re.compile(f"against {axis}"), timeout=60_000
    )


@pytest.mark.parametrize("axis", ["size", "latency"])
def test_a_click_on_the_frontier_loads_its_policy(visit: Visit, axis: str) -> None:
    """The point's budget is in the slider and in the link, which gives the same map to others."""
    page = visit("/tune?model=digits_resnet")
    if axis == "latency":
        page.get_by_role("radio", name="latency", exact=True).click()
    frontier(page, axis)
    before = kpi(page, "Size").inner_text()
    scroll_to(page, chart(page, FRONTIER))
    points = chart(page, FRONTIER).locator("path[aria-label*='Point: 2;']")
    points.first.click()

    expect(page).to_have_url(re.compile(rf"strategy={axis}\+budget"))
    expect(slider(page, re.compile("at most").pattern)).to_be_visible()
    expect(page.get_by_test_id("stSidebar").get_by_text("Least loss with")).to_be_visible()
    expect(kpi(page, "Size")).not_to_have_text(before)
    expect(page).to_have_url(re.compile(f"{axis}_at="))
    settle(page)
    shown = [kpi(page, title).inner_text() for title in ("Size", "Latency")]

    other = visit(page.url)

    assert [kpi(other, title).inner_text() for title in ("Size", "Latency")] == shown


def test_a_size_budget_follows_the_keyboard(visit: Visit) -> None:
    """Moving the slider solves again: the figures follow, and words say what was found."""
    page = visit("/?strategy=size+budget")
    before = kpi(page, "Size").inner_text()

    press(page, slider(page, "Size at most"), "ArrowLeft", 8)

    expect(kpi(page, "Size")).not_to_have_text(before)
    expect(page.get_by_test_id("stSidebar").get_by_text("budget binds")).to_be_visible()


def test_the_address_says_which_end_keeps_a_loss(visit: Visit) -> None:
    """A loss budget chosen anew names the upper end in the address, so that a copy of it opens with
    the same map; a click makes it the point.
    """
    page = visit("/")
    sidebar = page.get_by_test_id("stSidebar")

    sidebar.get_by_role("radio", name="loss budget").or_(
        sidebar.get_by_role("button", name="loss budget")
    ).first.click()

    expect(page).to_have_url(re.compile(r"loss_by=upper"))
    expect(sidebar.get_by_text("by the upper end of the 90 % range")).to_be_visible()
    sidebar.get_by_role("radio", name="point", exact=True).click()
    expect(page).to_have_url(re.compile(r"loss_by=point|strategy=loss.budget$"))
    expect(sidebar.get_by_text("of loss by the point")).to_be_visible()


def test_each_class_is_shown_when_asked(visit: Visit) -> None:
    """The panel holds a table of classes and the answers that change."""
    page = visit("/tune?strategy=uniform&uniform=INT8")

    page.get_by_text("Each class, and the samples whose answer changes").click()

    expect(page.get_by_text(re.compile("answers are projected to change"))).to_be_visible()
    expect(page.get_by_role("columnheader", name="This map, projected")).to_be_visible()
