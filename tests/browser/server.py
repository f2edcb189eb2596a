"""The real dashboard in a process of its own, and the Chromium that looks at it."""

from __future__ import annotations

import contextlib
import os
import secrets
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
PORTS = range(20_000, 32_000)
PORT_TRIES = 1_000
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

    The ports are below those that Linux gives of its own accord, since it gives only odd or only
    even ones while there are any.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    for _ in range(PORT_TRIES):
        port = PORTS.start + worker + workers * secrets.randbelow(len(PORTS) // workers)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("localhost", port))
            return port
    raise RuntimeError("no free port was found")


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
