"""The whole trade: the least loss for every size, or every latency.

Each point is a map, the answer to the budget that it uses up itself, so that a policy with that
budget gives the same map again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.decide.assess.compare import TOTAL_OF, Cost
from core.decide.assess.loss import loss_figures
from core.decide.assess.outcome import accuracy_totals
from core.decide.assess.pareto import pareto_front
from core.decide.policy.budget import Budget
from core.decide.policy.policy import Policy
from core.decide.solve.search import SearchResult
from core.decide.solve.solver import Solver
from core.decide.study import Study
from core.errors import PolicyError
from core.lru import LRU
from core.quantity import Quantity

POINTS = 20
UNITS: dict[Cost, Literal["bytes", "ms"]] = {"size": "bytes", "latency": "ms"}


@dataclass(frozen=True, eq=False)
class FrontierPoint:
    """One map of a frontier. `loss` is the projected objective (KL in nats, or squared change
    over variance; with labels, the rise of the loss), `totals` what is projected with ranges,
    `policy` the budget that gives the map.
    """

    codes: NDArray[np.int8]
    loss: float
    size_bytes: int
    latency_ms: float
    policy: Policy
    totals: dict[str, Quantity]


@dataclass(frozen=True, eq=False)
class Frontier:
    """Points in the order of rising cost and falling loss; no point dominates another."""

    axis: Cost
    points: tuple[FrontierPoint, ...]

    def dominating(self, totals: Mapping[str, Quantity]) -> FrontierPoint | None:
        """The point with the least loss that beats a map with the projected `totals`: no worse in
        cost and in divergence, and better in one by more than rounding. None where no point does.
        """
        cost = totals[TOTAL_OF[self.axis]].value
        moved = totals[loss_figures(totals).divergence].value
        if cost is None or moved is None:
            return None
        for point in reversed(self.points):
            own = point.totals[TOTAL_OF[self.axis]].value
            loss = point.totals[loss_figures(totals).divergence].value
            if own is None or loss is None or own > cost * (1 + 1e-9) or loss > moved:
                continue
            if own < cost * (1 - 1e-6) or loss < moved * (1 - 1e-6) - 1e-15:
                return point
        return None

    def costs(self) -> NDArray[np.float64]:
        """Bytes or milliseconds of the points."""
        size = self.axis == "size"
        return np.array([p.size_bytes if size else p.latency_ms for p in self.points], float)


def frontier_policy(policy: Policy) -> Policy:
    """What a frontier depends on of a policy, and nothing else: a key for caches."""
    return replace(
        type(policy)(), hardware=policy.hardware, pins=policy.pins, overrides=policy.overrides,
        groups=policy.groups, target=policy.target, allowed=policy.allowed,
    )  # fmt: skip


def frontier(study: Study, policy: Policy, axis: Cost, points: int = POINTS) -> Frontier:
    """The frontier under the rules of `policy`, whose own budgets and strategy do not matter.

    Made once for each evidence, device and rules; `points` budgets are tried between the least
    cost and that of the least loss. Raises `PolicyError` before anything was measured.
    """
    if axis not in UNITS:
        raise PolicyError(f"There is no frontier over {axis!r}.", "Use size or latency.")
    base = frontier_policy(policy)
    kept = study.derived(_kept)
    return kept.get((base, axis, points), lambda: _frontier(study, base, axis, points))


def _kept(study: Study) -> LRU[tuple[Policy, Cost, int], Frontier]:
    return LRU(24)


def _frontier(study: Study, base: Policy, axis: Cost, points: int) -> Frontier:
    solver = study.derived(Solver)
    pool = solver.tables(base).pool
    costs = pool.size if axis == "size" else pool.ms
    least, most = _least(study, base, axis), float(costs[np.argmin(pool.cost)])
    found: dict[bytes, tuple[SearchResult, Policy]] = {}
    for amount in np.linspace(least, max(most, least), points)[::-1]:
        kept = _settled(study, base, axis, float(amount))
        found[kept[0].codes.tobytes()] = kept
    at = list(found.values())
    front = pareto_front([(_cost(f, axis), f.loss) for f, _ in at])
    distinct: dict[tuple[float, float], FrontierPoint] = {}
    for k in front:
        f, policy = at[k]
        distinct.setdefault(
            (_cost(f, axis), f.loss),
            FrontierPoint(f.codes, f.loss, int(f.size), f.ms, policy, _totals(study, f, policy)),
        )
    return Frontier(axis, tuple(p for _, p in sorted(distinct.items(), key=lambda item: item[0])))


def _totals(study: Study, found: SearchResult, policy: Policy) -> dict[str, Quantity]:
    return {
        "size_bytes": Quantity(int(found.size), "bytes", "exact"),
        "latency_ms": study.latency(policy.hardware).estimate(found.codes).total,
        **accuracy_totals(study, study.project(found.codes)),
    }


def _cost(found: SearchResult, axis: Cost) -> float:
    return found.size if axis == "size" else found.ms


def _asking(base: Policy, axis: Cost, amount: float) -> Policy:
    budget = Budget(axis, amount, UNITS[axis])
    return replace(base, strategy="budget", budgets=(budget,))


def _least(study: Study, base: Policy, axis: Cost) -> float:
    """The least cost that was found, however much is lost."""
    return _cost(study.derived(Solver).least(base, axis), axis)


def _settled(study: Study, base: Policy, axis: Cost, amount: float) -> tuple[SearchResult, Policy]:
    """The answer to a budget that is its own cost: asked again until it stays."""
    policy = _asking(base, axis, amount)
    solver = study.derived(Solver)
    found = solver.solve(policy).found
    for _ in range(8):
        policy = _asking(base, axis, _cost(found, axis))
        again = solver.solve(policy).found
        if np.array_equal(again.codes, found.codes):
            break
        found = again
    return again, policy
