"""Processes that must not outlive the one they work for."""

from __future__ import annotations

import os
import threading
import time

EVERY_S = 0.5


def end_with(parent: int) -> None:
    """End this process soon after its `parent` has ended, however that came about.

    A killed process can tell nobody, and its children get another parent. (`PR_SET_PDEATHSIG`
    asks for less, but acts when the thread that started this process ends.)
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(EVERY_S)
        os._exit(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
