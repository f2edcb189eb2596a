"""Files for other tools in a real browser: each is downloaded and read again."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import Error, Page, expect

from core.decide import answer
from core.decide.policy.policy import Policy
from core.export import bundle
from core.export.map import precision_map
from core.export.targets.legality import legality
from core.export.targets.names import kept_nodes
from core.export.targets.registry import TARGETS, export, get
from core.onnx_graph.node_table import Graph, lay_over
from core.source import samples
from tests.browser.conftest import Visit
from tests.browser.server import settle
from tests.browser.test_export import download, scrolled, study, upload

pytestmark = pytest.mark.browser

SAMPLE = "informer"


def graph() -> Graph:
    """The nodes kept with the sample."""
    table = kept_nodes(samples.get(SAMPLE).analysis)
    assert table is not None
    return lay_over(table, study(SAMPLE).layers)


def tool(page: Page, name: str) -> None:
    """Choose a tool."""
    box = page.get_by_test_id("stMain").get_by_role("combobox", name="Tool", exact=True)
    option = page.get_by_role("option", name=get(name).title, exact=True)
    said = page.get_by_text(f"Written for {get(name).package} {get(name).version};")
    settle(page)
    if box.input_value() != get(name).title:
        box.scroll_into_view_if_needed()
        for _ in range(6):  # a run that still draws closes the list
            box.press("Escape")  # gives up a text that chose nothing
            box.click()
            box.fill("")
            box.press_sequentially(get(name).title)
            with contextlib.suppress(Error):
                option.click(timeout=3000)
            settle(page)
            if said.is_visible():
                break
    expect(said).to_be_visible()
    settle(page)


def take_nearest(page: Page) -> None:
    """Tick the nearest legal map."""
    page.get_by_text("Use the nearest legal map").click()
    settle(page)


def test_each_tools_file_is_downloaded_and_read_again(visit: Visit, tmp_path: Path) -> None:
    """Every file has core's bytes and parses as what it is; so does the .zip, whose map loads."""
    one, nodes = study(SAMPLE), graph()
    chosen = answer.decide(one, Policy(top_k=24))
    page = visit("/export?k=24")

    packed = download(page, page.get_by_role("button", name="Download the bundle"), tmp_path)
    assert packed.read_bytes() == bundle.to_zip(one, chosen, nodes)
    with zipfile.ZipFile(packed) as inside:
        again = precision_map.from_json(inside.read("precision_map.json"), one)
    assert again.assigned == chosen.assigned

    ticked = False
    for name in TARGETS:
        tool(page, name)
        illegal = bool(legality(one, chosen, get(name), nodes).illegal)
        if illegal and not ticked:
            take_nearest(page)
            ticked = True
        button = page.get_by_role("button", name=f"Download {get(name).file}")
        path = download(page, button, tmp_path)

        content = path.read_bytes()
        assert content == export(one, chosen, name, graph=nodes, nearest=True).content, name
        if path.suffix == ".py":
            assert ast.get_docstring(ast.parse(content))
        elif path.suffix == ".json":
            assert json.loads(content) is not None
        else:
            assert content.startswith(b"#!/bin/sh\n")


def test_illegal_choices_and_wrong_names_are_told(visit: Visit, tmp_path: Path) -> None:
    """An illegal choice, a wrong name, and a graph of another model each have their message."""
    page = visit("/export")
    tool(page, "torchao")
    alert = page.get_by_test_id("stAlert")
    expect(alert.filter(has_text="torchao cannot run")).to_contain_text(
        re.compile(r"The nearest legal map changes size .* exact")
    )
    assert page.get_by_role("button", name="Download torchao.py").count() == 0
    take_nearest(page)
    expect(page.get_by_role("button", name="Download torchao.py")).to_be_visible()

    page.get_by_text("Names: PyTorch modules").click()
    wrong = tmp_path / "names.txt"
    wrong.write_text("head_\n", encoding="utf-8")
    tool(page, "modelopt")
    upload(page, "The model you deploy", wrong)
    expect(alert.filter(has_text="The model has no")).to_contain_text("nearest:")

    tool(page, "nncf")
    other = tmp_path / "nodes.json"
    other.write_bytes((samples.get("digits_resnet").analysis / "onnx_nodes.json").read_bytes())
    upload(page, "The model you deploy", other)
    expect(alert.filter(has_text="nodes.json has no")).to_contain_text("blocks.0.attention")


def test_another_targets_scheme_is_measured_from_here(visit: Visit) -> None:
    """One press opens Measure with the model and the target's scheme filled in; before it nothing
    scrolls sideways with the longest lines shown.
    """
    page = visit("/export")
    tool(page, "tensorrt")
    assert scrolled(page, 390, 1440) == []
    page.get_by_role("button", name="Measure under tensorrt").click()

    expect(page).to_have_url(re.compile(r"/measure"))
    settle(page)
    page.get_by_text("How it is measured").click()
    scheme = page.get_by_role("combobox", name="Scheme")
    expect(scheme).to_have_value("tensorrt")
    expect(page.get_by_role("combobox", name="Model to measure")).to_have_value(
        "informer (bundled sample)"
    )
