"""Every page on screen: it opens cold, looks as it did, and fits every width."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from dashboard.pages import PAGES
from tests.browser.conftest import Visit
from tests.browser.controls import kpi
from tests.browser.pictures import difference, save_thumbnail, thumbnail
from tests.browser.server import settle
from tests.conftest import GOLDEN

pytestmark = pytest.mark.browser

REDRAWN_MS = 2_000
"""Charts take the width of a window that changed a moment later."""
BACKGROUNDS = {"light": "rgb(255, 255, 255)", "dark": "rgb(23, 22, 20)"}
DESK = ((1440, 1000), (1024, 1000))
PHONE = ((390, 1000), (720, 500))
"""A telephone, and a desk at 200 % zoom, half its width in CSS pixels: the sidebar is folded."""
TOLERANCE = 9.0
"""Mean difference of two thumbnails (0 to 255) that other fonts may make on another machine."""


@pytest.mark.parametrize("scheme", BACKGROUNDS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_cold_and_looks_as_it_did(
    name: str, scheme: str, visit: Visit, request: pytest.FixtureRequest
) -> None:
    """A page opens in light and dark with the KPI row and no error; in few pixels it resembles its
    golden picture more than that of the other theme, and in light it fits a desk.
    """
    page = visit(PAGES[name].address, scheme=scheme)
    page.mouse.move(1436, 996)
    png = page.screenshot(animations="disabled")
    folder = GOLDEN / "screens"
    path = folder / f"{name}-{scheme}.png"
    if request.config.getoption("--overwrite"):
        folder.mkdir(exist_ok=True)
        path.write_bytes(save_thumbnail(png))

    expect(kpi(page, "Size")).to_be_visible()
    expect(page.get_by_test_id("stAlertContentError")).to_have_count(0)
    background = page.get_by_test_id("stApp").evaluate("e => getComputedStyle(e).backgroundColor")
    assert background == BACKGROUNDS[scheme]
    assert difference(thumbnail(png), thumbnail(path.read_bytes())) < TOLERANCE
    if scheme == "light":
        assert misfits(page, DESK) == []


def test_golden_pictures_differ_from_each_other() -> None:
    """The tolerance is narrower than the difference between any two pages, or it proves nothing."""
    pictures = {p.stem: thumbnail(p.read_bytes()) for p in (GOLDEN / "screens").glob("*.png")}
    assert len(pictures) == 2 * len(PAGES)
    for scheme in ("light", "dark"):
        same = [name for name in pictures if name.endswith(scheme)]
        other = [name for name in pictures if not name.endswith(scheme)]
        for a in same:
            assert all(difference(pictures[a], pictures[b]) > 3 * TOLERANCE for b in other)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_small_windows(name: str, visit: Visit) -> None:
    """Opened on a telephone, and at twice the size, nothing is cut off or covered."""
    width, height = PHONE[0]

    assert misfits(visit(PAGES[name].address, width=width, height=height), PHONE) == []


def misfits(page: Page, sizes: tuple[tuple[int, int], ...]) -> list[str]:
    """What is wider than the window, or covers something, at each size in CSS pixels."""
    found = []
    for width, height in sizes:
        page.set_viewport_size({"width": width, "height": height})
        settle(page)
        if _misfits(page):
            page.wait_for_timeout(REDRAWN_MS)
        found += [f"{width}: {what}" for what in _misfits(page)]
    return found


def _misfits(page: Page) -> list[str]:
    wide = {
        "the page": page.evaluate("document.documentElement.scrollWidth - window.innerWidth"),
        "its main part": page.get_by_test_id("stMain").evaluate("e => e.scrollWidth - e.clientWidth"),
    }  # fmt: skip
    return [
        *(f"{part} scrolls sideways" for part, by in wide.items() if by > 0),
        *(f"{a!r} and {b!r} overlap" for a, b in overlaps(page)),
    ]


def overlaps(page: Page) -> list[list[str]]:
    """Pairs of elements of the page's main part that cover each other."""
    found: list[list[str]] = page.evaluate(
        """() => {
          const kinds = '[data-testid=stMetric], [data-testid=stVegaLiteChart], ' +
            '[data-testid=stDataFrame], [data-testid=stTable], [data-testid=stButton]';
          const boxes = [...document.querySelectorAll('[data-testid=stMain] ' + kinds)]
            .filter(e => e.offsetParent && !e.closest('details:not([open])')).map(e => [e, e.getBoundingClientRect()]);
          const bad = [];
          for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
            const [[a, p], [b, q]] = [boxes[i], boxes[j]];
            if (a.contains(b) || b.contains(a)) continue;
            if (Math.min(p.right, q.right) - Math.max(p.left, q.left) > 1 &&
                Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 1)
              bad.push([a.innerText.slice(0, 40), b.innerText.slice(0, 40)]);
          }
          return bad;
        }"""
    )
    return found
