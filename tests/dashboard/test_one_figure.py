"""The same figure is the same everywhere: on every page, in every table and in the report."""

from __future__ import annotations

import re

import pytest

from core.decide.assess.frontier import frontier
from core.export.report import markdown
from core.quantity import digits, written
from dashboard.charts.frontier import Shown, chart
from dashboard.display.text import format_quantity
from dashboard.display.theme import LIGHT
from dashboard.session.strategies import CURRENT
from tests.dashboard.conftest import Open, failures, go, kpis, said
from tests.dashboard.test_policy import view

MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize("shape", ["measured", "single", "values"])
def test_one_figure_is_written_alike_on_every_page(shape: str, open_app: Open) -> None:
    """Size, latency and loss of the map on screen have the same digits in the KPI row, on the
    card and in the list of Compare, and in the report; the list says what the layers that differ
    take of the very total that is on the card.
    """
    app = open_app(shape)
    shown = kpis(app)
    totals, labels = view(app).now.found.totals, view(app).loss_labels
    size, time, loss = (totals[n] for n in ("size_bytes", "latency_ms", labels.first))
    assert shown["Size"] == written(size.value, "bytes")
    assert shown["Latency"] == written(time.value, "ms")

    page = said(go(app, "compare"))
    assert failures(app) == []
    for quantity in (size, time, loss):
        assert f"**{format_quantity(quantity).split(' ')[0]}" in page
    lines = [line for line in page.splitlines() if f"**{CURRENT}**: " in line]
    for line in lines:
        assert f" of {written(size.value, 'bytes')} exact" in line
        assert f" of {written(time.value, 'ms')} estimated" in line

    report = markdown.to_markdown(view(app).study, view(app).now.chosen).decode()
    for quantity in (size, time, loss):
        assert quantity.value is not None
        assert f" {digits(quantity.value, quantity.unit)} " in report


def test_the_verdict_adds_up(open_app: Open) -> None:
    """In the verdict's sentence, size before plus change is size after, to the last digit."""
    sentence = next(m.value for m in open_app("measured").markdown if "against FP32" in m.value)

    found = re.search(r"size ([\d.]+) MB → \*\*([\d.]+) MB\*\* exact, ([−\d.]+) MB", sentence)
    assert found is not None
    before, after, change = (float(text.replace(MINUS, "-")) for text in found.groups())
    assert round(before + change, 3) == after


def test_maps_in_one_place_have_one_label(open_app: Open) -> None:
    """On the frontier, names of maps with the same figures stand side by side, not on each other."""
    found = view(open_app("measured"))
    labels = found.loss_labels
    front = frontier(found.study, found.policy, "size")
    maps = [Shown(name, found.now.found.totals) for name in ("Current", "All INT8")]
    spec = chart(
        front, [*maps, Shown("All FP32", found.reference.found.totals)], "kl", labels, LIGHT
    )

    assert spec is not None
    assert list(spec["datasets"]["maps"]["label"]) == ["Current = All INT8", "", "All FP32"]
