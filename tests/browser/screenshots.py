"""Screenshots of every page in light and dark: `python -m tests.browser.screenshots OUTDIR`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.browser.controls import PATHS
from tests.browser.server import chromium, launch, serving, settle

WIDTH, HEIGHT = 1440, 1000
PAGES = {name: path.removeprefix("/") for name, path in PATHS.items()}
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
    page.goto(f"{address}/{PAGES[name]}")
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


def main() -> int:
    """Write the pictures. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="OUTDIR")
    folder = parser.parse_args().folder
    if chromium() is None:
        sys.stderr.write("error: no Chromium on this machine. Install it, then try again.\n")
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, serving() as address:
        browser = launch(playwright)
        for name in PAGES:
            for scheme in ("light", "dark"):
                sys.stdout.write(f"{shoot(browser, address, name, scheme, folder)}\n")
        browser.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
