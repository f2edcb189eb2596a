"""The dashboard with a solver that waits to be let on, and writes down what it does.

`python -m tests.browser.counted FOLDER [options of the dashboard]`: each budget that is begun is a
line "begun" of the file `log` in the folder, each that is solved to its end a line "solved". As
long as there is a file `hold`, searches go over the step at hand again and again.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from core.decide.solve import search
from core.decide.solve.solver import Solver
from dashboard.__main__ import main

PAUSE_S = 0.02


def _count(folder: Path) -> None:
    """Make every step of a search wait, and every budget tell of itself."""
    step, tried = search._Search._step, Solver._tried
    log, hold = folder / "log", folder / "hold"

    def held_step(self: Any, *args: Any, **options: Any) -> Any:
        while hold.exists():
            step(self, *args, **options)
            time.sleep(PAUSE_S)
        return step(self, *args, **options)

    def told(self: Any, policy: Any, *args: Any) -> Any:
        with log.open("a") as file:
            file.write(f"begun {policy.budgets}\n")
        found = tried(self, policy, *args)
        with log.open("a") as file:
            file.write(f"solved {policy.budgets}\n")
        return found

    search._Search._step, Solver._tried = held_step, told  # type: ignore[method-assign]


if __name__ == "__main__":
    _count(Path(sys.argv[1]))
    raise SystemExit(main(sys.argv[2:]))
