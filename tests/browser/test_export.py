"""Files in a real browser: every download, and what comes back by upload."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from core.analysis import store
from core.decide import answer
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.export.map import csv_table, precision_map
from core.export.report import html, markdown
from core.source import samples
from tests.browser.conftest import Visit
from tests.browser.server import settle
from tests.browser.test_browser import kpi, kpis, press, slider

pytestmark = pytest.mark.browser

MAKERS = {
    "JSON": precision_map.to_json,
    "CSV": csv_table.to_csv,
    "Markdown report": markdown.to_markdown,
    "HTML report": html.to_html,
}


def study(name: str) -> Study:
    """A bundled sample's study."""
    return Study(store.load(samples.get(name).analysis))


def choose(page: Page, title: str) -> None:
    """Choose the format with this title."""
    page.get_by_test_id("stMain").get_by_role("radio", name=title, exact=True).click()


def download(page: Page, button: Locator, folder: Path) -> Path:
    """Press a download button; returns the file."""
    with page.expect_download() as waiting:
        button.click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def upload(page: Page, label: str, path: Path) -> None:
    """Choose a file in the uploader with this label."""
    page.get_by_test_id("stFileUploader").filter(has_text=label).locator(
        "input[type=file]"
    ).set_input_files(path)


def test_each_format_downloads_what_core_writes(visit: Visit, tmp_path: Path) -> None:
    """The chosen format and those made when pressed give the same bytes as `core`."""
    one = study("informer")
    chosen = answer.decide(one, Policy(top_k=24))
    page = visit("/export?k=24")
    main = page.get_by_test_id("stMain")

    for title, make in MAKERS.items():
        button = main.get_by_role("button", name=title, exact=True)
        if title == "JSON":
            button = main.get_by_role("button", name="Download JSON")
        path = download(page, button, tmp_path)
        assert path.read_bytes() == make(one, chosen), title
        assert path.name.startswith("informer.current.")


def test_a_map_and_a_session_come_back(visit: Visit, tmp_path: Path) -> None:
    """What was downloaded loads again to the same figures, and F5 is survived by the file."""
    page = visit("/export")
    before = kpi(page, "Size").inner_text()
    press(page, slider(page, "HIGH from score"), "End", 1)
    expect(kpi(page, "Size")).not_to_have_text(before)
    settle(page)
    figures = kpis(page)
    file = download(page, page.get_by_role("button", name="Download JSON"), tmp_path)
    page.keyboard.press("Alt+p")
    expect(page.get_by_text("Holds the policy and the pinned map.")).to_be_visible()
    saved = download(page, page.get_by_role("button", name="Save session"), tmp_path)

    other = visit("/export")
    upload(other, "Precision map", file)
    expect(other.get_by_text(re.compile("fits this model"))).to_be_visible()
    other.get_by_role("button", name="Load into the controls").click()
    expect(slider(other, "HIGH from score")).to_have_value("1")
    settle(other)
    assert kpis(other) == figures
    upload(other, "Restore session", saved)
    other.get_by_role("button", name="Restore session").click()
    expect(other.get_by_text(re.compile("Session restored from"))).to_be_visible()
    expect(other.get_by_text("Pinned: thresholds 1.00 / 0.40")).to_be_visible()


def test_strangers_files_are_refused(visit: Visit, tmp_path: Path) -> None:
    """Another sample's map and garbage are named, the figures stay, and a good file clears."""
    other = study("digits_vit")
    strange, garbage = tmp_path / "vit.json", tmp_path / "garbage.json"
    strange.write_bytes(precision_map.to_json(other, answer.decide(other, Policy())))
    garbage.write_bytes(b"\x00\xff garbage")
    good = tmp_path / "good.json"
    one = study("informer")
    good.write_bytes(precision_map.to_json(one, answer.decide(one, Policy())))
    page = visit("/export")
    figures = kpis(page)

    upload(page, "Precision map", strange)
    alert = page.get_by_test_id("stAlert").filter(has_text=".json")
    expect(alert).to_contain_text("belongs to model 'digits_vit', not to 'informer'")
    upload(page, "Precision map", garbage)
    expect(alert).to_contain_text("is no precision map")
    assert kpis(page) == figures
    upload(page, "Precision map", good)
    expect(alert).to_contain_text("good.json fits this model")
    assert json.loads(good.read_bytes())["schema_version"] == 1


@pytest.mark.parametrize(
    ("scheme", "titles", "widths"),
    [("light", tuple(MAKERS), (1024, 390, 1440)), ("dark", ("HTML report",), (390, 1440))],
    ids=["light", "dark"],
)
def test_every_format_shows_its_preview(
    scheme: str, titles: tuple[str, ...], widths: tuple[int, ...], visit: Visit
) -> None:
    """No format scrolls sideways at any width, and the live report logs no error."""
    page = visit("/export", scheme=scheme)
    wide = []

    for title in titles:
        choose(page, title)
        expect(page.get_by_role("button", name=f"Download {title}")).to_be_visible()
        settle(page)
        if title == "HTML report":
            frame = page.get_by_test_id("stMain").frame_locator("iframe")
            expect(frame.locator("h1")).to_contain_text("Quantization sensitivity of")
            expect(frame.locator("#figure-scores svg").first).to_be_attached()
        wide += [f"{title} at {width} px" for width in scrolled(page, *widths)]

    assert wide == []


def scrolled(page: Page, *widths: int) -> list[int]:
    """The widths at which the page scrolls sideways; it ends with the last of them."""
    found = []
    for width in widths:
        page.set_viewport_size({"width": width, "height": 1000})
        settle(page)
        if page.evaluate("document.documentElement.scrollWidth - window.innerWidth") > 0:
            found.append(width)
    return found
