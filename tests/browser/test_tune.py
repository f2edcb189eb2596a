"""Sliders, brush and selection as the mouse and the keyboard find them."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, WebSocket, expect
from streamlit.proto.BackMsg_pb2 import BackMsg

from core.analysis import store
from core.decide import answer
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.source import samples
from dashboard.display.text import format_number
from tests.browser.conftest import Visit
from tests.browser.controls import chart, kpi, press, scroll_to, slider, thumb_label, thumb_of
from tests.browser.server import settle

pytestmark = pytest.mark.browser

STRIP, SCORES = "Layers in execution order", "Score of each layer"
PLOT_TOP_PX, PLOT_PX = 31, 245
"""Where the plot of the score chart begins and how high it is; its scores run from 0 to 1.06."""


def sent(page: Page) -> list[str]:
    """Messages that the page sends to the server from its next load on, but for those by which it
    looks for news every few seconds of its own accord.
    """
    found: list[str] = []

    def keep(message: str | bytes) -> None:
        if isinstance(message, str) or not BackMsg.FromString(message).rerun_script.is_auto_rerun:
            found.append("message")

    def watch(socket: WebSocket) -> None:
        socket.on("framesent", keep)

    page.on("websocket", watch)
    return found


def score_at(page: Page, score: float) -> tuple[float, float]:
    """Where a score lies in the score chart, at its left edge, where no layer is."""
    box = scroll_to(page, chart(page, SCORES))
    return box["x"] + 66, box["y"] + PLOT_TOP_PX + PLOT_PX * (1 - score / 1.06)


def detail(page: Page) -> Locator:
    """The select of the layer detail."""
    return page.get_by_test_id("stSelectbox").get_by_role("combobox", name="Layer", exact=True)


def point(page: Page, number: int) -> Locator:
    """A layer in FP16 in the score chart."""
    return chart(page, SCORES).locator("path[aria-label*='Precision: FP16']").nth(number)


def colours(page: Page) -> list[str]:
    """Fills of the layers in the score chart."""
    paths = chart(page, SCORES).locator("g.mark-symbol.role-mark path").all()
    return [path.get_attribute("fill") or "" for path in paths]


def test_a_dragged_slider_runs_once_on_release(visit: Visit) -> None:
    """The label follows the thumb; nothing is sent before the release, and then figures follow."""
    page = visit("/")
    messages = sent(page)
    page.reload()
    settle(page)
    before, control = kpi(page, "Size").inner_text(), slider(page, "HIGH from score")
    box = thumb_of(control).bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    quiet = len(messages)

    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 40, y, steps=8)
    expect(thumb_label(control)).not_to_have_text("0.70")
    during = len(messages)
    shown = kpi(page, "Size").inner_text()
    page.mouse.up()

    assert (during, shown) == (quiet, before)
    expect(kpi(page, "Size")).not_to_have_text(before)
    assert len(messages) > quiet


def test_a_brush_recolours_before_its_release_and_then_moves_the_slider(visit: Visit) -> None:
    """While scores are brushed layers change colour in the browser alone; the release sets HIGH."""
    page = visit("/tune")
    before, size = colours(page), kpi(page, "Size").inner_text()
    x, top = score_at(page, 1.04)
    _, bottom = score_at(page, 0.9)

    page.mouse.move(x, top)
    page.mouse.down()
    page.mouse.move(x + 20, bottom, steps=6)
    during = colours(page)
    unchanged = kpi(page, "Size").inner_text()
    page.mouse.up()

    assert during != before
    assert unchanged == size
    expect(slider(page, "HIGH from score")).to_have_value(re.compile(r"0\.(89|9|91)"))
    expect(kpi(page, "Size")).not_to_have_text(size)
    settle(page)
    assert colours(page) == during


def test_a_slider_after_a_brush_is_the_truth(visit: Visit) -> None:
    """Moving the slider removes a brush that no longer holds."""
    page = visit("/tune")
    x, top = score_at(page, 1.04)
    _, bottom = score_at(page, 0.9)
    page.mouse.move(x, top)
    page.mouse.down()
    page.mouse.move(x, bottom, steps=4)
    page.mouse.up()
    expect(slider(page, "HIGH from score")).to_have_value(re.compile(r"0\.(89|9|91)"))
    settle(page)
    brush = chart(page, SCORES).locator("g.brush_brush, g.mark-rect.brush_brush")
    expect(brush).not_to_have_count(0)
    drawn = brush.first.inner_html()

    press(page, slider(page, "HIGH from score"), "Home", 1)

    expect(slider(page, "HIGH from score")).to_have_value("0")
    settle(page)
    expect(brush.first).not_to_have_text(drawn)
    assert brush.first.bounding_box() is None or brush.first.inner_html() != drawn


def test_one_layer_is_selected_everywhere(visit: Visit) -> None:
    """A click in the strip shows in chart, table and detail, and stays when a threshold moves."""
    page = visit("/tune")
    box = scroll_to(page, chart(page, STRIP))
    page.mouse.click(box["x"] + 0.45 * box["width"], box["y"] + 80)
    expect(detail(page)).not_to_have_value("")
    name = detail(page).input_value()
    expect(page.get_by_text("Only this layer").first).to_be_visible()

    before = kpi(page, "Size").inner_text()
    press(page, slider(page, "HIGH from score"), "End", 1)
    expect(kpi(page, "Size")).not_to_have_text(before)
    settle(page)
    expect(detail(page)).to_have_value(name)
    page.get_by_role("link", name="Overview").click()
    expect(page.get_by_text("Recommended strategy by use")).to_be_visible()
    page.get_by_role("link", name="Tune").click()
    expect(detail(page)).to_have_value(name)


def test_a_layer_can_be_chosen_from_the_chart_after_the_list(visit: Visit) -> None:
    """Chart, list and chart again: the last choice counts, also for a mark chosen before."""
    page = visit("/tune")
    scroll_to(page, chart(page, SCORES))
    point(page, 0).click()
    expect(detail(page)).not_to_have_value("")
    first = detail(page).input_value()
    page.get_by_role("button", name="Close").click()
    expect(detail(page)).to_have_value("")
    settle(page)

    scroll_to(page, chart(page, SCORES))
    point(page, 0).click()

    expect(detail(page)).to_have_value(first)


def test_a_layer_is_forced_from_its_detail(visit: Visit) -> None:
    """Force FP32 in the detail reaches the figures, the link and the table."""
    page = visit("/tune")
    scroll_to(page, chart(page, SCORES))
    point(page, 0).click()
    expect(detail(page)).not_to_have_value("")
    name, before = detail(page).input_value(), kpi(page, "Size").inner_text()

    page.get_by_role("button", name="Force FP32").click()

    expect(page.get_by_role("button", name="Keep FP32")).to_be_disabled()
    assert kpi(page, "Size").inner_text() != before
    assert f"overrides={name}" in page.url.replace("%3D", "=")


def test_rapid_changes_during_a_slow_run_are_all_kept(visit: Visit, large: str) -> None:
    """Keys on two sliders that arrive while 2,000 layers are drawn end in the last values."""
    page = visit(f"{large}/tune")
    high, medium = slider(page, "HIGH from score"), slider(page, "MEDIUM from score")

    press(page, high, "ArrowRight", 6)
    press(page, medium, "ArrowLeft", 4)
    press(page, high, "ArrowRight", 5)

    expect(high).to_have_value("0.81")
    expect(medium).to_have_value("0.36")
    settle(page)
    expect(high).to_have_value("0.81")
    expect(page).to_have_url(
        re.compile("high_at=0.81.*medium_at=0.36|medium_at=0.36.*high_at=0.81")
    )


def test_figures_of_the_page_are_those_of_core(visit: Visit) -> None:
    """After a move in the browser the size on screen is what core computes for that policy."""
    page = visit("/?model=digits_vit")
    before = kpi(page, "Size").inner_text()
    press(page, slider(page, "HIGH from score"), "End", 1)
    expect(kpi(page, "Size")).not_to_have_text(before)
    settle(page)
    study = Study(store.load(samples.get("digits_vit").analysis))
    chosen = answer.decide(study, Policy(high_threshold=1.0))
    size = sum(
        int(study.size_bytes[max(code, 0), i]) for i, code in enumerate(chosen.codes)
    ) + study.glue_bytes  # fmt: skip

    expect(kpi(page, "Size")).to_have_text(format_number(size, "bytes"))
