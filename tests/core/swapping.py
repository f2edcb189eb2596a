"""Saving an analysis over another, killed before every single step on the file system.

    python -m tests.core.swapping FOLDER {exchange|aside}

Each save is a forked process that kills itself at its n-th step, n = 0, 1, ... until one ends by
itself. With `aside` the system is taken for one that cannot exchange two names. Prints what an
opening found after every kill, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from core.analysis import store, swap
from tests.core.synthetic import synthetic_analysis

STEPS = (
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "open",
    "ctypes.call_function",
    "shutil.rmtree",
)


class Steps:
    """Counts what a save does to the file system and kills the process at one of them."""

    def __init__(self, last: int) -> None:
        self.left = last

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        """Take note of an event that Python audits."""
        if event in STEPS:
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1


def main() -> None:
    """Kill saves until one gets through."""
    folder, way = Path(sys.argv[1]) / "analysis", sys.argv[2]
    if way == "aside":
        swap.exchange = lambda one, other: False  # type: ignore[assignment]
    old = synthetic_analysis(3, samples=4)
    new = replace(old, title="the new one")
    found: list[str] = []
    aside = 0
    for step in range(10_000):
        store.save(old, folder)
        child = os.fork()
        if not child:
            try:
                sys.addaudithook(Steps(step))
                store.save(new, folder)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        aside += not folder.exists()
        found.append(store.load(folder).title)
        if not os.WIFSIGNALED(status):
            break
    store.save(old, folder)
    for path in folder.parent.iterdir():
        os.utime(path, (0, 0))
    store.save(new, folder)
    left = sorted(path.name for path in folder.parent.iterdir())
    told = {"found": found, "aside": aside, "titles": [old.title, new.title], "left": left}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
