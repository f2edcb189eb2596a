"""A burst of keys on a budget's slider."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.controls import press, slider, thumb_label
from tests.browser.server import POLL_S, free_port, running, settle

pytestmark = pytest.mark.browser

WAIT_S = 60


def test_a_burst_of_keys_solves_the_last_budget_alone(browser: Browser, tmp_path: Path) -> None:
    """Budgets that the slider passes are given up, and the one where it stops is solved and shown.

    The solver is held until the last key has arrived, so that every budget before it is unsolved
    by then.
    """
    log, hold, port = tmp_path / "log", tmp_path / "hold", free_port()

    def lines(kind: str) -> list[str]:
        return [line for line in log.read_text().splitlines() if line.startswith(kind)]

    def wait_for(megabytes: str) -> None:
        end = time.monotonic() + WAIT_S
        while not any(_in_bytes(megabytes) in line for line in lines("begun")):
            assert time.monotonic() < end, lines("begun")
            time.sleep(POLL_S)

    command = [sys.executable, "-m", "tests.browser.counted", str(tmp_path), f"--port={port}"]
    with running(command, port) as address:
        page = browser.new_page()
        page.goto(f"{address}/?strategy=size+budget")
        settle(page)
        log.write_text("")
        hold.touch()
        thumb = slider(page, "Size at most")
        press(page, thumb, "ArrowLeft", 1)
        wait_for(thumb_label(thumb).inner_text())
        press(page, thumb, "ArrowLeft", 14)
        last = thumb_label(thumb).inner_text()
        wait_for(last)
        hold.unlink()

        said = page.get_by_test_id("stSidebar").get_by_text("Least loss with")
        expect(said).to_contain_text(f"of {last}")
        settle(page)
        assert len(lines("begun")) > 1
        assert [_in_bytes(last) in line for line in lines("solved")] == [True]
        page.close()


def _in_bytes(megabytes: str) -> str:
    return f"amount={float(megabytes) * 1e6:.0f}.0"
