"""A model named at launch is measured from the page: progress, stop, resume, and the result."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from core.jobs import jobs
from sample_models.informer.ohlcv_csv import minimum_rows
from tests.browser.conftest import Visit
from tests.browser.controls import kpi, press, slider
from tests.browser.server import serving, settle
from tests.core.small_job import PATIENCE_S, write_model

pytestmark = pytest.mark.browser

PATIENCE_MS = PATIENCE_S * 1_000
"""A job imports torch, which takes its time on a busy machine."""


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A dashboard with a function named at launch, whose measurement waits for a file to go."""
    folder = tmp_path / "mine"
    source = write_model(folder, hold=True)
    with serving(source) as address:
        yield address, folder / "hold"
    for job in jobs.everything():
        jobs.stop(job)
        jobs.remove(job)


def main(page: Page) -> Locator:
    """What stands beside the sidebar."""
    return page.get_by_test_id("stMain")


def button(page: Page, name: str) -> Locator:
    """A button of the page by its title."""
    return main(page).get_by_role("button", name=name, exact=True)


def progress(page: Page) -> Locator:
    """The text of the progress bar."""
    return main(page).get_by_test_id("stProgress")


def test_a_model_is_measured_while_controls_stay_live(mine: tuple[str, Path], visit: Visit) -> None:
    """Start, progress, a slider that answers meanwhile, Stop, Resume, done, and Open it."""
    address, hold = mine
    page = visit(f"{address}/measure")
    expect(page.get_by_role("combobox", name="Model to measure")).to_have_value(
        "mine.py:load (named at launch)"
    )

    button(page, "Start").click()
    expect(progress(page)).to_contain_text(re.compile(r"[1-9]\d* of \d+ · .+ so far"),
                                           timeout=PATIENCE_MS)  # fmt: skip
    before = kpi(page, "Size").inner_text()
    press(page, slider(page, "HIGH from score"), "End", 1)
    expect(kpi(page, "Size")).not_to_have_text(before)
    expect(progress(page)).to_contain_text(" of ")
    then = progress(page).inner_text()
    expect(progress(page)).not_to_have_text(then)  # the clock goes on without a click

    page.get_by_role("link", name="Tune").click()
    expect(page.get_by_text("Score of each layer")).to_be_visible()
    expect(page.get_by_text(re.compile(r"Measuring mine\.load-run-1: \d+ of"))).to_be_visible()
    page.get_by_role("link", name="Measure").click()

    button(page, "Stop").click()
    expect(button(page, "Resume")).to_be_visible()
    expect(progress(page)).to_have_count(0)
    expect(main(page).get_by_text(re.compile(r"Stopped at \d+ of \d+ runs"))).to_be_visible()

    hold.unlink()
    button(page, "Resume").click()
    expect(button(page, "Open it")).to_be_visible(timeout=PATIENCE_MS)
    expect(main(page).get_by_text(re.compile(r"3 layers over 32 samples"))).to_be_visible()

    button(page, "Open it").click()
    expect(page.get_by_text("Is this map a good idea?")).to_be_visible()
    settle(page)
    assert "model=mine.load-run-1" in page.url
    expect(page.get_by_test_id("stSidebar").get_by_text(re.compile("3 layers"))).to_be_visible()
    expect(page.get_by_test_id("stAlert").filter(has_text="went wrong")).to_have_count(0)


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """As `mine`, with a model of 13 layers of which some are measured when it stands still."""
    folder = tmp_path / "mine"
    source = write_model(folder, hold=True, deep=True)
    with serving(source) as address:
        yield address, folder / "hold"
    for job in jobs.everything():
        jobs.stop(job)
        jobs.remove(job)


def test_what_is_measured_so_far_can_be_used(deep: tuple[str, Path], visit: Visit) -> None:
    """A running job's partial result is opened, a slider moves on it, and it becomes the whole one
    under the person's policy.
    """
    address, hold = deep
    page = visit(f"{address}/measure")
    button(page, "Start").click()
    expect(button(page, "Open what is measured")).to_be_visible(timeout=PATIENCE_MS)
    button(page, "Open what is measured").click()

    expect(page.get_by_text("Is this map a good idea?")).to_be_visible()
    side = page.get_by_test_id("stSidebar")
    expect(side.get_by_text(re.compile(r"partial, \d+ of 13 layers"))).to_be_visible()
    expect(main(page).get_by_text(re.compile(r"Confidence: partial"))).to_be_visible()
    before = kpi(page, "Size").inner_text()
    press(page, slider(page, "HIGH from score"), "Home", 1)
    expect(kpi(page, "Size")).not_to_have_text(before)
    settle(page)
    assert "high_at=0" in page.url
    assert "model=mine.load-run-1" in page.url
    expect(page.get_by_test_id("stAlert").filter(has_text="went wrong")).to_have_count(0)

    hold.unlink()
    expect(main(page).get_by_text(re.compile(r"Confidence: projected"))).to_be_visible(
        timeout=PATIENCE_MS
    )
    settle(page)
    assert "high_at=0" in page.url
    assert "model=mine.load-run-1" in page.url
    expect(side.get_by_text(re.compile("partial"))).to_have_count(0)


def test_a_job_is_found_again_after_a_reload(mine: tuple[str, Path], visit: Visit) -> None:
    """Another browser, or the same one after F5, sees the job running and can stop it."""
    address, _ = mine
    page = visit(f"{address}/measure")
    button(page, "Start").click()
    expect(button(page, "Stop")).to_be_visible()

    page.reload()
    settle(page)
    other = visit(f"{address}/measure")

    expect(button(page, "Stop")).to_be_visible()
    button(other, "Stop").click()
    expect(button(other, "Resume")).to_be_visible()
    expect(button(page, "Resume")).to_be_visible()


def test_a_bad_csv_is_named_by_row_and_column(visit: Visit) -> None:
    """A person's file goes through the sample's checks in the page, and a good one is counted."""
    page = visit("/measure")
    chooser = page.locator("input[type=file]")
    chooser.set_input_files(
        {"name": "mine.csv", "mimeType": "text/csv",
         "buffer": b"open,high,low,close,volume\n1,2,1,lots,5\n"}
    )  # fmt: skip
    expect(page.get_by_text("Row 2, column close: 'lots' is not a plain number.")).to_be_visible()
    expect(button(page, "Start")).to_be_disabled()

    chooser.set_input_files(
        {"name": "mine.csv", "mimeType": "text/csv",
         "buffer": b"open,high,low,close,volume\n1,2,1,2,5\n"}
    )  # fmt: skip
    expect(page.get_by_text("mine.csv has 1 row of bars")).to_be_visible()
    expect(button(page, "Start")).to_be_disabled()

    rows = minimum_rows()
    chooser.set_input_files(
        {"name": "mine.csv", "mimeType": "text/csv",
         "buffer": b"open,high,low,close,volume\n" + b"1,2,1,2,5\n" * rows}
    )  # fmt: skip
    expect(page.get_by_text(f"Measured with mine.csv: {rows:,} rows.")).to_be_visible()
    expect(button(page, "Start")).to_be_enabled()
