"""The additive problem under one budget, for every budget at once: a dynamic programme.

A multiple-choice knapsack (Kellerer, Pferschy and Pisinger 2004, chapter 11): one precision for
each unit, losses added up, costs on a grid. Costs are rounded to the grid, so that answers are
checked against true costs and those of neighbouring budgets are given too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS = 4_096
MAX_CELLS = 40_000_000
NEAR = np.array([-48, -24, -12, -6, -3, -1, 0, 1, 3, 6, 12, 24, 48])
"""Budgets, in bins from the one asked for, whose answers are given as well."""


@dataclass(frozen=True, eq=False)
class Knapsack:
    """Least loss for every bin of cost above the least cost; `picks` [U, bins] trace it back."""

    best: Doubles
    picks: NDArray[np.int8]
    steps: Ints  # [P, U] cost in bins above the unit's least
    width: float
    least: float

    def near(self, budget: float) -> Ints:
        """Precisions (M, U) of the best maps at and around `budget`, some of them beyond it."""
        return self._around((budget - self.least) / self.width if self.width > 0 else 0.0)

    def losing(self, most: float) -> Ints:
        """Precisions (M, U) of the cheapest maps with a loss of `most`, and around them."""
        return self._around(float(np.argmax(np.minimum.accumulate(self.best) <= most)))

    def _around(self, at: float) -> Ints:
        last = len(self.best) - 1
        return self._trace(np.unique(np.clip(int(np.clip(at, 0, last)) + NEAR, 0, last)))

    def _trace(self, bins: Ints) -> Ints:
        units = len(self.picks)
        found = np.zeros((len(bins), units), dtype=np.int64)
        at = bins.copy()
        for u in range(units - 1, -1, -1):
            found[:, u] = self.picks[u, at]
            at -= self.steps[found[:, u], u]
        return found


def knapsack(loss: Doubles, cost: Doubles) -> Knapsack:
    """Solve for losses and costs by precision and unit, (P, U); inf marks what is not open."""
    precisions, units = loss.shape
    open_cost = np.where(np.isfinite(loss), cost, np.nan)
    least = np.nanmin(open_cost, axis=0) if units else np.zeros(0)
    span = float((np.nanmax(open_cost, axis=0) - least).sum()) if units else 0.0
    bins = max(64, min(BINS, MAX_CELLS // max(units, 1)))
    width = span / (bins - 1)
    over = np.where(np.isfinite(loss), cost - least, 0.0)
    steps = np.rint(over / width).astype(np.int64) if width > 0 else np.zeros_like(over, np.int64)
    steps = np.minimum(steps, bins - 1)
    best = np.zeros(bins)
    picks = np.zeros((units, bins), dtype=np.int8)
    for u in range(units):
        reached = np.full((precisions, bins), np.inf)
        for p in range(precisions):
            if np.isfinite(loss[p, u]):
                shift = int(steps[p, u])
                reached[p, shift:] = best[: bins - shift] + loss[p, u]
        picks[u] = reached.argmin(axis=0)
        best = reached.min(axis=0)
    return Knapsack(best, picks, steps, width, float(least.sum()))
