"""Compare in a real browser: links, races between messages, and the charts."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Visit
from tests.browser.server import settle
from tests.browser.test_browser import kpi, press, slider

pytestmark = pytest.mark.browser


def references(page: Page) -> Locator:
    """The control that chooses the reference among those side by side."""
    return page.get_by_test_id("stRadio").filter(has_text="Reference")


def test_loading_a_strategy_opens_tune_with_its_link(visit: Visit) -> None:
    """The policy of a card is in the controls, in the address of Tune, and can be undone."""
    page = visit("/compare?high_at=0.8&hardware=datacenter-gpu-t4")
    before = kpi(page, "Size").inner_text()

    page.get_by_role("button", name="Load into Tune").nth(3).click()  # All INT8
    expect(page.get_by_text("Score of each layer")).to_be_visible()
    expect(page).to_have_url(re.compile("/tune.*strategy=uniform"))
    assert "hardware=datacenter-gpu-t4" in page.url
    expect(kpi(page, "Size")).not_to_have_text(before)
    settle(page)  # a page that is being switched takes no keys

    page.keyboard.press("Alt+z")
    expect(kpi(page, "Size")).to_have_text(before)


def test_moves_of_a_slider_are_no_choice(visit: Visit) -> None:
    """The document's strategy joins once the map differs from it, however quick the keys are."""
    page = visit("/compare")
    expect(references(page)).not_to_contain_text("Document thresholds")

    press(page, slider(page, "HIGH from score"), "ArrowRight", 10)

    expect(slider(page, "HIGH from score")).to_have_value("0.8")
    joined = re.compile("Document thresholds")
    expect(references(page).filter(has_text=joined)).to_be_visible()
    expect(page.get_by_test_id("stMultiSelect").filter(has_text=joined)).to_be_visible()


def test_a_bad_name_is_said_beside_it(visit: Visit) -> None:
    """A taken name is refused where it was typed and stays there; a free one is kept."""
    page = visit("/compare")
    page.get_by_role("button", name="Keep current map as").click()
    body = page.get_by_test_id("stPopoverBody")

    body.get_by_role("textbox").fill("All INT8")
    body.get_by_role("button", name="Keep").click()
    expect(body.get_by_test_id("stAlert")).to_contain_text("already")
    expect(body.get_by_role("textbox")).to_have_value("All INT8")

    body.get_by_role("textbox").fill("Careful")
    body.get_by_role("button", name="Keep").click()
    expect(page.get_by_test_id("stMultiSelect").filter(has_text="Careful")).to_be_visible()
    expect(body.get_by_test_id("stAlert")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_parallel_coordinates_are_drawn(scheme: str, visit: Visit) -> None:
    """One line with markers per strategy, and a label that says who is best."""
    page = visit("/compare", scheme=scheme)
    page.get_by_text("All figures at once").click()

    chart = page.get_by_test_id("stPlotlyChart")
    names = references(page).get_by_role("radio").count()
    expect(chart.locator(".scatterlayer .trace")).to_have_count(names)
    expect(
        page.get_by_role("figure", name=re.compile("Best in Size: All INT4-g32"))
    ).to_be_visible()
