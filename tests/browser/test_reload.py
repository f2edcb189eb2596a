"""A reload: the pinned map and the kept strategies come back from the browser's own store."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Page, expect

from dashboard.session.browser_store import PREFIX, pack, unpack
from tests.browser.conftest import Visit
from tests.browser.server import settle

pytestmark = pytest.mark.browser
HELD = f"Object.keys(localStorage).filter(name => name.startsWith('{PREFIX}'))"
DROPPED = re.compile("session that this browser kept.*It was dropped", re.IGNORECASE)


def pin_and_keep(page: Page, name: str) -> None:
    """Pin the map on screen, and keep it under a name; returns when the browser holds both."""
    page.keyboard.press("Alt+p")
    expect(page.get_by_text(re.compile("^Pinned: "))).to_be_visible()
    keep(page, name)
    expect(page.get_by_test_id("stMultiSelect").filter(has_text=name)).to_be_visible()
    page.wait_for_function(f"{HELD}.length === 1")
    settle(page)


def keep(page: Page, name: str) -> None:
    """Keep the map on screen under a name."""
    page.get_by_role("button", name="Keep current map as").click()
    body = page.get_by_test_id("stPopoverBody")
    body.get_by_role("textbox").fill(name)
    body.get_by_role("button", name="Keep").click()


def strategies(page: Page, name: str) -> int:
    """How many chosen strategies are called `name`."""
    return page.get_by_test_id("stMultiSelect").filter(has_text=name).count()


def test_a_reload_keeps_the_pin_and_the_strategies_of_this_analysis_alone(visit: Visit) -> None:
    """After F5 both are there and in no link; another analysis gets neither; Forget them is for
    good.
    """
    page = visit("/compare?high_at=0.8")
    pin_and_keep(page, "Careful")
    assert "Careful" not in page.url

    page.reload()
    settle(page)
    expect(page.get_by_text("Pinned: thresholds 0.80")).to_be_visible()
    expect(page.get_by_test_id("stMultiSelect").filter(has_text="Careful")).to_be_visible()

    page.goto(page.url.split("?")[0] + "?model=digits_vit")
    settle(page)
    expect(page.get_by_text(re.compile("^Pinned: "))).to_have_count(0)
    assert strategies(page, "Careful") == 0

    page.goto(page.url.replace("/compare", "/export").split("?")[0])
    settle(page)
    page.get_by_role("button", name="Forget them").click()
    page.wait_for_function(f"{HELD}.length === 0")
    page.reload()
    settle(page)
    expect(page.get_by_role("button", name="Forget them")).to_be_disabled()
    expect(page.get_by_text(re.compile("^Pinned: "))).to_have_count(0)


NO_SESSIONS = (
    "no JSON",
    json.dumps({"at": 1, "text": "%%%"}),
    json.dumps({"at": 1, "text": pack(b'{"schema_version": 1, "strategies": "<script>"}')}),
)


def test_what_the_store_holds_is_not_believed(visit: Visit) -> None:
    """A value that no session wrote is dropped with a sentence, and the page works on."""
    page = visit("/compare")
    pin_and_keep(page, "Careful")
    name = page.evaluate(f"{HELD}[0]")

    for written in NO_SESSIONS:
        page.evaluate("([name, text]) => localStorage.setItem(name, text)", [name, written])
        page.reload()
        settle(page)
        expect(page.get_by_test_id("stToast").filter(has_text=DROPPED)).to_be_visible()
        expect(page.get_by_text(re.compile("^Pinned: "))).to_have_count(0)
        page.wait_for_function(f"{HELD}.length === 0")


def test_two_tabs_lose_nothing_that_either_keeps(visit: Visit) -> None:
    """A tab adds what another one kept to its own before it writes, its pin as a strategy, and says so."""
    first = visit("/compare?high_at=0.8")
    second = first.context.new_page()
    second.goto(first.url.replace("0.8", "0.9"))
    settle(second)
    pin_and_keep(first, "Careful")
    second.bring_to_front()
    second.keyboard.press("Alt+p")
    expect(second.get_by_text(re.compile("Another tab kept 2 more"))).to_be_visible()
    expect(second.get_by_text("Pinned: thresholds 0.90")).to_be_visible()
    settle(second)
    keep(second, "Bold")
    settle(second)

    third = first.context.new_page()
    third.goto(first.url.split("?")[0])
    settle(third)
    expect(third.get_by_text("Pinned: thresholds 0.90")).to_be_visible()
    written = json.loads(third.evaluate(f"localStorage.getItem({HELD}[0])"))["text"]
    held = json.loads(unpack(written))["strategies"]
    assert {one["name"] for one in held} == {"Careful", "Bold", "Pinned 2"}
