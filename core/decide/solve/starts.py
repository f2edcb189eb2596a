"""Maps that a search starts from: answers of the additive problem."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from core.decide.solve.problem import Task
from core.decide.solve.search_tables import Pool

Codes = NDArray[np.int8]

RETIMED = 4
"""Times that boundaries are priced anew, as the best map has them."""


def starts(task: Task, count: int, beyond: Callable[[Codes], float]) -> list[Codes]:
    """Up to `count` maps that keep the limits, the best first, else the one that comes closest.

    `beyond` tells how far a map lies beyond a limit that is checked by projection.
    """
    pool = _pool(task)
    if task.timed:
        pool = _retimed(task, pool)
    order = _ranked(task, pool)
    if not np.isfinite(task.limits.judged):
        return [pool.codes[i] for i in order[:count]]
    over = task.limits.over(pool.size, pool.ms, pool.cost)
    kept: list[Codes] = []
    for i in order:
        if over[i] > 0 or len(kept) == count:
            break
        if beyond(pool.codes[i]) <= 0:
            kept.append(pool.codes[i])
    return kept or [pool.codes[int(np.lexsort((pool.cost, over))[0])]]


def _pool(task: Task) -> Pool:
    """Maps of the tables, and the additive answers to these limits."""
    limits = task.limits
    return task.tables.pool.joined(task.tables.near(limits.size, limits.ms, limits.loss))


def _retimed(task: Task, pool: Pool) -> Pool:
    """Beside `pool`, additive answers whose boundaries are priced as its best map has them, and
    as the best of those has them, while that helps.
    """
    limits = task.limits
    best = _ranked(task, pool)[0]
    for _ in range(RETIMED):
        codes = pool.codes[best]
        pool = pool.joined(task.tables.around(codes, limits.size, limits.ms, limits.loss))
        best = _ranked(task, pool)[0]
        if (pool.codes[best] == codes).all():
            break
    return pool


def _ranked(task: Task, pool: Pool) -> list[int]:
    """Positions in the pool: by excess over the limits, then by what is minimised."""
    over = task.limits.over(pool.size, pool.ms, pool.cost)
    loss = np.asarray(task.weighed(pool.cost, task.tables.added(pool.codes)))
    goal = {"loss": loss, "size": pool.size, "latency": pool.ms}[task.minimise]
    return [int(i) for i in np.lexsort((pool.cost, goal, over))]
