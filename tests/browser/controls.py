"""Where things stand on the pages, as a person would look for them."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page


def kpi(page: Page, title: str) -> Locator:
    """The value of one KPI card."""
    card = page.get_by_test_id("stMetric").filter(has_text=re.compile(f"^{title}"))
    return card.get_by_test_id("stMetricValue")


def kpis(page: Page) -> list[str]:
    """The values of the KPI row."""
    return page.get_by_test_id("stMetricValue").all_inner_texts()[:4]


def slider(page: Page, title: str) -> Locator:
    """The thumb of a slider in the sidebar."""
    return page.get_by_test_id("stSidebar").get_by_role("slider", name=title)


def press(page: Page, thumb: Locator, key: str, times: int) -> None:
    """Focus a slider and press a key; each press may be a run, and runs may be skipped."""
    thumb.focus()
    for _ in range(times):
        page.keyboard.press(key)


def chart(page: Page, alt: str) -> Locator:
    """The chart whose text for people who cannot see it begins with `alt`."""
    return page.locator(f"[data-testid='stVegaLiteChart'][aria-label^='{alt}']")


def thumb_of(control: Locator) -> Locator:
    """What the mouse drags of a slider; the control itself is out of sight."""
    return control.locator("xpath=../..")


def thumb_label(control: Locator) -> Locator:
    """The value that a slider shows above its thumb."""
    return thumb_of(control).get_by_test_id("stSliderThumbValue")


def scroll_to(page: Page, place: Locator) -> dict[str, float]:
    """Bring `place` into view and return its box."""
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    assert box is not None
    return dict(box)
