"""What a search is asked: what to make least, within which limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from core.decide.policy.budget import Axis
from core.decide.solve.search_tables import SearchTables
from core.errors import StoppedError

Codes = NDArray[np.int8]
Doubles = NDArray[np.float64]
Figures = float | Doubles

TINY = 1e-12
SLACK = 1e-9
"""Shares of a limit that are rounding."""


def never() -> bool:
    """What a search that nobody will want to end is asked whether to stop."""
    return False


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a map may take; inf where nothing limits it. `loss` is in the unit of the
    objective, `judged` in that of `Task.judge`.
    """

    size: float = np.inf
    ms: float = np.inf
    loss: float = np.inf
    judged: float = np.inf

    def over(self, size: Figures, ms: Figures, loss: Figures) -> Doubles:
        """How far figures of maps lie beyond the limits, as a sum of shares; 0 where they keep
        them. A limit of nothing is held against a tiny share.
        """
        beyond = np.zeros(np.shape(loss))
        for figures, most in ((size, self.size), (ms, self.ms), (loss, self.loss)):
            if np.isfinite(most):
                beyond = beyond + np.maximum(np.asarray(figures) - most, 0.0) / max(most, TINY)
        return np.where(beyond <= SLACK, 0.0, beyond)

    def without(self, axis: Axis) -> Limits:
        """The same limits but for those on `axis`."""
        if axis == "loss":
            return replace(self, loss=np.inf, judged=np.inf)
        return replace(self, size=np.inf) if axis == "size" else replace(self, ms=np.inf)


@dataclass(frozen=True, eq=False)
class Task:
    """What to minimise within which limits.

    `judge` gives the loss of a map in the unit of a budget that is checked by projection, None
    where the budget is on the objective itself, or there is none. A loss that is minimised is
    `hedge` parts the sum of the layers' own losses, and for the rest the projected one.
    `should_stop` is asked before every step, in the thread of the search.
    """

    tables: SearchTables
    minimise: Axis
    limits: Limits
    judge: Callable[[Codes], float] | None = None
    hedge: float = 0.0
    should_stop: Callable[[], bool] = never

    def check(self) -> None:
        """Raise `StoppedError` where the search is to be given up."""
        if self.should_stop():
            raise StoppedError("The search was given up.", "Ask again.")

    def weighed(self, projected: Figures, added: Figures) -> Figures:
        """The loss to minimise, from the projected one and the sum of the layers' own."""
        if self.minimise != "loss" or not self.hedge:
            return projected
        return (1 - self.hedge) * projected + self.hedge * added

    @property
    def timed(self) -> bool:
        """Whether latency matters."""
        return bool(np.isfinite(self.limits.ms)) or self.minimise == "latency"
