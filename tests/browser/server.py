"""The real dashboard in a process of its own, and the Chromium that looks at it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, Playwright

from tests.conftest import REPOSITORY

START_S = 60
POLL_S = 0.05
CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
SETTLED = """() => {
  const app = document.querySelector('[data-testid="stApp"]');
  return app && app.dataset.testScriptState === 'notRunning'
      && !document.querySelector('[data-testid="stSkeleton"]');
}"""
DRAWN = """() => [...document.querySelectorAll('[data-testid="stVegaLiteChart"]')]
  .every(chart => chart.querySelector('svg, canvas'))"""


def chromium() -> str | None:
    """Where Chromium is; None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which(
        "google-chrome"
    )  # fmt: skip


def launch(playwright: Playwright) -> Browser:
    """A headless Chromium."""
    return playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_ARGUMENTS)


def free_port() -> int:
    """A port that nothing listens on at this moment, and that no other worker of this run takes:
    each has the ports of one remainder.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    while True:
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port: int = probe.getsockname()[1]
            if port % workers == worker:
                return port


@contextmanager
def serving(*named: Path | str) -> Iterator[str]:
    """The address of a dashboard on folders, functions and bundled samples; stopped at the end."""
    port = free_port()
    command = [sys.executable, "-m", "dashboard", *map(str, named), f"--port={port}"]
    with running(command, port) as address:
        yield address


@contextmanager
def serving_script(script: Path) -> Iterator[str]:
    """The address of a Streamlit script, to compare the dashboard with."""
    port = free_port()
    command = [sys.executable, "-m", "streamlit", "run", str(script), f"--server.port={port}"]
    with running(command, port) as address:
        yield address


@contextmanager
def running(command: list[str], port: int) -> Iterator[str]:
    """Run `command`, which serves on `port`, for the length of a block."""
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        address = f"http://localhost:{port}"
        try:
            wait_until_up(address, process)
            yield address
        finally:
            process.terminate()


def wait_until_up(address: str, process: subprocess.Popen[bytes]) -> None:
    """Return when the server answers; raises if it ends or stays silent."""
    give_up = time.monotonic() + START_S
    while time.monotonic() < give_up:
        if process.poll() is not None:
            raise RuntimeError(f"The dashboard ended with code {process.returncode}.")
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=1) as answer:  # noqa: S310
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(POLL_S)  # a process that starts, not a page
    raise RuntimeError(f"The dashboard did not answer within {START_S} s.")


def settle(page: Page) -> None:
    """Wait until the script has run and every chart is drawn."""
    page.get_by_test_id("stMetricValue").first.wait_for()
    page.wait_for_function(SETTLED)
    page.wait_for_function(DRAWN)
