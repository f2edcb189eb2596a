"""Screenshots of every page in light and dark: `python -m tests.browser.screenshots OUTDIR`."""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from core.cli.main import main as command_line
from core.numerics.precision import REFERENCE
from core.source import samples
from dashboard.pages import PAGES
from tests.browser.server import chromium, launch, serving, settle

WIDTH, HEIGHT = 1440, 1000
VERIFIED, MAPS = "digits_resnet", (4, 8, 12, 16, 20, 24, 27, 30)
"""The sample whose maps are run for the picture of Verify, and how many layers each narrows."""
ONLY_KL = "w_theory=0&w_importance=0&w_empirical=0&w_kl=1"
ON_SCREEN = {"verify": f"model={VERIFIED}&strategy=top-k&k=16&high={REFERENCE}&{ONLY_KL}"}
OF_OTHERS = "model=informer"
STEPS = 8
"""How far the HIGH threshold is moved on Tune, so that the picture shows what a move does."""


def shoot(browser: Browser, address: str, name: str, scheme: str, folder: Path) -> Path:
    """One picture. On Tune a map is pinned and a threshold moved first."""
    context = browser.new_context(
        color_scheme="dark" if scheme == "dark" else "light",
        viewport={"width": WIDTH, "height": HEIGHT},
        device_scale_factor=1,
    )
    page = context.new_page()
    page.goto(f"{address}{PAGES[name].address}?{ON_SCREEN.get(name, OF_OTHERS)}")
    settle(page)
    if name == "tune":
        page.keyboard.press("Alt+p")
        page.get_by_text("no layer differs").first.wait_for()
        thumb = page.get_by_test_id("stSidebar").get_by_role("slider", name="HIGH from score")
        thumb.focus()
        for _ in range(STEPS):
            page.keyboard.press("ArrowRight")
        page.get_by_text("Flipped layers").wait_for()
        settle(page)
        thumb.blur()
    page.mouse.move(WIDTH - 4, HEIGHT - 4)
    path = folder / f"{name}-{scheme}.png"
    page.screenshot(path=path, animations="disabled")
    context.close()
    return path


def verified(folder: Path) -> Path:
    """A copy of a sample's analysis with some of its maps run, for a picture of what that shows."""
    copy = folder / VERIFIED
    shutil.copytree(samples.get(VERIFIED).analysis, copy)
    maps = []
    for count in MAPS:
        path = folder / f"{count} in INT8.json"
        words = ["plan", str(copy), "--top-k", str(count), "--high", REFERENCE, "--weights", "kl=1"]
        command_line([*words, "--out", str(path), "--json"])
        maps.append(str(path))
    command_line(["verify", str(copy), *maps, "--repeat", "4", "--json"])
    return copy


def main() -> int:
    """Write the pictures. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="OUTDIR")
    parser.add_argument("--page", choices=tuple(PAGES), action="append", help="default: all")
    options = parser.parse_args()
    folder = options.folder
    if chromium() is None:
        sys.stderr.write("error: no Chromium on this machine. Install it, then try again.\n")
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    pages = options.page or list(PAGES)
    with tempfile.TemporaryDirectory() as aside, sync_playwright() as playwright:
        named = []
        if "verify" in pages:
            with contextlib.redirect_stdout(io.StringIO()):
                named = [verified(Path(aside))]
        with serving(*named) as address:
            browser = launch(playwright)
            for name in pages:
                for scheme in ("light", "dark"):
                    sys.stdout.write(f"{shoot(browser, address, name, scheme, folder)}\n")
            browser.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
