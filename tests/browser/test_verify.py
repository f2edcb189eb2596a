"""Verify is pressed, the measured number arrives, and a slider answers meanwhile."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from core.cli.main import main as command_line
from core.jobs import jobs
from tests.browser.conftest import Visit
from tests.browser.controls import kpi, press, slider
from tests.browser.server import serving
from tests.core.small_job import PATIENCE_S, write_model

pytestmark = pytest.mark.browser

PATIENCE_MS = PATIENCE_S * 1_000
"""A job imports torch and exports the model, which takes its time on a busy machine."""


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[str]:
    """A dashboard on an analysis of a function that was named at launch."""
    source = write_model(tmp_path / "mine")
    folder = tmp_path / "run"
    words = ["analyze", source, "--out", str(folder), "--no-cache", "--precisions", "FP16,INT8"]
    assert command_line(words) == 0
    with serving(folder, source) as address:
        yield address
    for job in jobs.everything():
        jobs.stop(job)
        jobs.remove(job)


def main(page: Page) -> Locator:
    """What stands beside the sidebar."""
    return page.get_by_test_id("stMain")


def card(page: Page) -> Locator:
    """The card that says what the map loses."""
    return page.get_by_test_id("stMetric").nth(2)


def test_the_measured_number_arrives_while_a_slider_answers(mine: str, visit: Visit) -> None:
    """Verify this map: the loss turns from projected to measured, with the sliders live."""
    page = visit(f"{mine}/verify?high=FP32")
    expect(card(page)).to_contain_text("projected", timeout=PATIENCE_MS)
    expect(main(page).get_by_text("This map was not run yet")).to_be_visible()

    main(page).get_by_role("button", name="Verify this map").click()
    expect(main(page).get_by_test_id("stProgress")).to_contain_text("so far", timeout=PATIENCE_MS)
    before = kpi(page, "Size").inner_text()
    press(page, slider(page, "HIGH from score"), "End", 1)
    expect(kpi(page, "Size")).not_to_have_text(before)
    page.get_by_test_id("stSidebar").get_by_role("button", name=re.compile("Undo")).click()
    expect(kpi(page, "Size")).to_have_text(before)

    expect(card(page)).to_contain_text("measured", timeout=PATIENCE_MS)
    expect(main(page).get_by_text("This map, measured")).to_be_visible()
    expect(main(page).get_by_text(re.compile("Of 1 map that were run"))).to_be_visible()
    expect(main(page).get_by_text("Confidence: measured")).to_be_visible()
