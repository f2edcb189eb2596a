"""How long a slider takes to reach the KPI row, and a cold page to show it, in Chromium.

`python -m tests.benchmarks.slider_latency [--presses N] [--layers 57,2000]`

A bare Streamlit page with one slider and four metrics is measured in the same run: what it takes
belongs to Streamlit, the browser and the load of the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, TimeoutError, sync_playwright  # noqa: A004

from core.analysis import store
from core.source import samples
from dashboard.pages import PAGES
from tests.browser.server import chromium, launch, serving, serving_script, settle
from tests.core.synthetic import synthetic_analysis

SAMPLES = 200
BURST = 15
KEYS = ("PageDown", "PageDown", "PageDown", "ArrowLeft", "PageUp", "PageUp", "ArrowLeft")
BARE = """import streamlit as st
k = st.sidebar.slider("Layers to narrow (k)", 0, 100, 50)
for column in st.columns(4):
    column.metric("k", k)
"""
# Time is taken in the page itself: from the key's own event to the change of the first KPI's text.
WATCH = """() => {
  window.latency = {from: 0, taken: []};
  document.addEventListener('keydown', e => { window.latency.from = e.timeStamp }, true);
  const text = () => [...document.querySelectorAll('[data-testid="stMetricValue"]')]
    .slice(0, 4).map(e => e.innerText).join('|');
  let last = text();
  new MutationObserver(() => {
    const now = text();
    if (now !== last && now.split('|').length === 4) {
      last = now;
      if (window.latency.from) window.latency.taken.push(performance.now() - window.latency.from);
      window.latency.from = 0;
    }
  }).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""
FIRST_KPI = """() => new Promise(done => {
  const look = () => document.querySelector('[data-testid="stMetricValue"]')
    ? done(performance.now()) : requestAnimationFrame(look);
  look();
})"""


def presses(page: Page, count: int) -> list[float]:
    """Milliseconds from key press to KPI row for top-k steps, each of which changes the KPIs."""
    page.evaluate(WATCH)
    thumb = page.get_by_test_id("stSidebar").get_by_role("slider", name="Layers to narrow")
    thumb.focus()
    for i in range(count):
        page.keyboard.press("ArrowRight" if i % 2 else "ArrowLeft")
        page.wait_for_function(f"() => window.latency.taken.length > {i}", timeout=10_000)
        settle(page)
    taken: list[float] = page.evaluate("window.latency.taken")
    return taken


def cold(browser: Browser, url: str, count: int = 5) -> list[float]:
    """Milliseconds from navigation to the first KPI, each time in a fresh context."""
    taken = []
    for _ in range(count):
        context = browser.new_context(viewport={"width": 1440, "height": 1000})
        page = context.new_page()
        page.goto(url, wait_until="commit")
        taken.append(float(page.evaluate(FIRST_KPI)))
        context.close()
    return taken


def budgets(page: Page, count: int) -> list[float]:
    """Milliseconds from key press to KPI row for size budgets that no key has met before.

    Keys move the slider by ten steps or by one, as fast as pages settle. A budget whose map is
    the last one's changes nothing.
    """
    page.evaluate(WATCH)
    thumb = page.get_by_test_id("stSidebar").get_by_role("slider", name="Size at most")
    thumb.focus()
    for i in range(count):
        before = page.evaluate("window.latency.taken.length")
        page.keyboard.press(KEYS[i % len(KEYS)])
        with contextlib.suppress(TimeoutError):
            page.wait_for_function(f"() => window.latency.taken.length > {before}", timeout=2_000)
        settle(page)
        page.evaluate("window.latency.taken.splice({before} + 1); window.latency.from = 0".replace(
            "{before}", str(before)))  # fmt: skip
    taken: list[float] = page.evaluate("window.latency.taken")
    return taken


def burst(page: Page) -> float:
    """Milliseconds until a page has settled after keys that are pressed at once."""
    page.get_by_test_id("stSidebar").get_by_role("slider", name="Size at most").focus()
    start = time.perf_counter()
    for _ in range(BURST):
        page.keyboard.press("ArrowRight")
    settle(page)
    return 1e3 * (time.perf_counter() - start)


def line(title: str, taken: list[float]) -> str:
    """Median and 90th percentile."""
    ordered = sorted(taken)
    p90 = ordered[min(len(ordered) - 1, round(0.9 * len(ordered)))]
    return f"{title:<44} median {statistics.median(taken):6.0f} ms   p90 {p90:6.0f} ms"


def report(browser: Browser, where: str, url: str, count: int) -> None:
    """Print the cold load and the slider of one page."""
    print(line(f"{where}: cold load to first KPI", cold(browser, url)))
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    page.goto(url)
    settle(page)
    print(line(f"{where}: key to KPI row", presses(page, count)), flush=True)
    page.close()


def report_budgets(browser: Browser, name: str, address: str, count: int) -> None:
    """Print how long a moved size budget takes to its answer, on the first page and Tune, and
    how long a burst of keys takes to settle.
    """
    for where in ("", "tune"):
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.goto(f"{address}/{where}?model={name}&strategy=size+budget")
        settle(page)
        title = f"{name} {where or 'overview'}: size budget"
        print(f"{line(title, budgets(page, count))}   burst {burst(page):6.0f} ms", flush=True)
        page.close()


def main() -> int:
    """Print the figures. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presses", type=int, default=30)
    parser.add_argument("--layers", default="57,2000", help="sizes of the made-up models")
    parser.add_argument("--budgets-only", action="store_true", help="leave the rest out")
    given = parser.parse_args()
    if chromium() is None:
        print("no Chromium on this machine: nothing is measured")
        return 0
    sizes = [int(text) for text in given.layers.split(",")]
    with tempfile.TemporaryDirectory() as root, sync_playwright() as playwright:
        folders = []
        for size in sizes:
            folders.append(Path(root) / f"layers-{size}")
            store.save(
                synthetic_analysis(size, samples=SAMPLES if size <= 200 else 30), folders[-1]
            )
        shipped = [name for name in samples.names() if samples.get(name).analysis.exists()]
        browser = launch(playwright)
        script = Path(root) / "bare.py"
        script.write_text(BARE, encoding="utf-8")
        with serving_script(script) as address:
            report(browser, "bare Streamlit page", address, given.presses)
        with serving(*folders) as address:
            for name in [] if given.budgets_only else [*shipped, *(f.name for f in folders)]:
                for page in (page for page in PAGES.values() if page.needs != "nothing"):
                    url = f"{address}{page.address}?model={name}&strategy=top-k"
                    report(browser, f"{name} {page.name}", url, given.presses)
            for name in (*shipped, *(f.name for f in folders)):
                report_budgets(browser, name, address, given.presses)
        browser.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
