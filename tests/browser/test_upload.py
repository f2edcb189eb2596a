"""From an ONNX file and two arrays to a verified map, with nothing but a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from playwright.sync_api import Page, expect

from core.jobs import jobs
from tests.browser.conftest import Visit
from tests.browser.controls import kpi
from tests.browser.server import serving, settle
from tests.browser.test_export import download, upload
from tests.browser.test_measure import PATIENCE_MS, button, main
from tests.core.test_onnx_road import written

pytestmark = pytest.mark.browser


@pytest.fixture
def plain() -> Iterator[str]:
    """A dashboard that was given nothing."""
    with serving() as address:
        yield address
    for job in jobs.everything():
        jobs.stop(job)
        jobs.remove(job)


def _give(page: Page, part: str, file: Path) -> None:
    upload(page, part, file)
    expect(main(page).get_by_text(re.compile(f"^{re.escape(file.name)}: "))).to_be_visible()


def test_a_file_becomes_a_verified_map(plain: str, visit: Visit, tmp_path: Path) -> None:
    """Upload, measure, tune, verify, and download the map."""
    written(tmp_path)
    page = visit(f"{plain}/measure")
    page.get_by_role("combobox", name="Model to measure").click()
    page.get_by_role("option", name="An ONNX file (upload)").click()
    expect(main(page).get_by_text("Give an ONNX file and calibration arrays.")).to_be_visible()
    expect(button(page, "Start")).to_be_disabled()
    _give(page, "ONNX file", tmp_path / "my model.onnx")
    _give(page, "Calibration", tmp_path / "calib.npz")
    _give(page, "Evaluation", tmp_path / "eval.npz")

    button(page, "Start").click()
    expect(button(page, "Open it")).to_be_visible(timeout=PATIENCE_MS)
    button(page, "Open it").click()
    expect(page.get_by_text("my_model-run-1").first).to_be_visible()
    settle(page)

    page.get_by_role("link", name="Tune").click()
    expect(main(page).get_by_text("Score of each layer")).to_be_visible()
    page.get_by_test_id("stSidebar").get_by_text("uniform", exact=True).click()
    expect(kpi(page, "Layers in INT8")).to_have_text(re.compile("^[2-9] of"))

    page.get_by_role("link", name="Verify").click()
    button(page, "Verify this map").click()
    expect(main(page).get_by_text("This map, measured")).to_be_visible(timeout=PATIENCE_MS)

    page.get_by_role("link", name="Export").click()
    settle(page)
    found = download(page, page.get_by_role("button", name="Download JSON"), tmp_path)
    chosen = {
        row["name"]: row["precision"] for row in json.loads(found.read_text("utf-8"))["layers"]
    }
    assert (chosen["Conv@0"], chosen["MatMul@0"]) == ("INT8", "INT8")


def test_what_cannot_be_measured_is_said_beside_the_uploader(
    plain: str, visit: Visit, tmp_path: Path
) -> None:
    """An operator of somebody's own is named with its node, and arrays of another input too; the
    form waits until both are mended.
    """
    written(tmp_path)
    model = onnx.load(tmp_path / "my model.onnx")
    model.graph.node[0].domain = "mine"
    (tmp_path / "custom.onnx").write_bytes(model.SerializeToString())
    np.savez(tmp_path / "other.npz", y=np.zeros((4, 3), np.float32))
    page = visit(f"{plain}/measure")
    page.get_by_role("combobox", name="Model to measure").click()
    page.get_by_role("option", name="An ONNX file (upload)").click()

    upload(page, "ONNX file", tmp_path / "custom.onnx")
    expect(main(page).get_by_text(re.compile("custom operator: .*mine::"))).to_be_visible()
    _give(page, "ONNX file", tmp_path / "my model.onnx")
    _give(page, "Calibration", tmp_path / "other.npz")
    expect(main(page).get_by_text(re.compile(r"other\.npz holds .* input"))).to_be_visible()
    expect(button(page, "Start")).to_be_disabled()
