"""What a search knows before it starts: costs of every unit, interactions, and maps to start from.

All of it depends on the evidence, the device and the rules of a policy, not on its budgets: it is
made once and asked many times.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from core.decide.solve.choices import Choices
from core.decide.solve.knapsack import Knapsack, knapsack
from core.estimate.latency import Crossings, LatencyModel
from core.estimate.map_objective import MapObjective

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

TRIED_NEAR = 6
"""Answers of the additive problem around a budget whose loss is computed."""
MOST_CODES = 2_000_000
"""Layers of maps that are timed at once."""
PRICES = 40
"""Prices of a byte, or of a millisecond, that the additive start tries."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Maps with their figures: codes (M, L), projected cost, bytes and milliseconds (M,)."""

    codes: NDArray[np.int8]
    cost: Doubles
    size: Doubles
    ms: Doubles

    def joined(self, other: Pool) -> Pool:
        """The maps of both."""
        return Pool(
            np.concatenate([self.codes, other.codes]), np.concatenate([self.cost, other.cost]),
            np.concatenate([self.size, other.size]), np.concatenate([self.ms, other.ms]),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class SearchTables:
    """Choices with their prices. `sizes` [P, L] are bytes, `glue` bytes that belong to no layer."""

    choices: Choices
    objective: MapObjective
    sizes: NDArray[np.int64]
    glue: int
    latency: LatencyModel

    @cached_property
    def size(self) -> Doubles:
        """Bytes of each unit in each precision (P, U)."""
        return self.choices.summed(self.sizes.astype(np.float64))

    @cached_property
    def own_ms(self) -> Doubles:
        """Milliseconds of each unit in each precision, boundaries left out (P, U)."""
        return self.choices.summed(self.latency.own_ms())

    @cached_property
    def alone(self) -> Doubles:
        """Projected cost of each unit alone in each precision (P, U), inf where not open.

        For units of several layers, with the interactions between them.
        """
        found = self.choices.summed(self.objective.alone)
        for u, unit in enumerate(self.choices.members):
            if len(unit) > 1:
                base = np.where(self.choices.fixed < 0, -1, 0).astype(np.int8)
                place = self.objective.place(base)
                gets = self.choices.got
                changes = [(unit, gets(np.full(len(unit), p), unit)) for p in range(len(found))]
                found[:, u] = self.objective.moved(place, changes)
        return np.where(self.choices.options, found, np.inf)

    @cached_property
    def quadratic(self) -> Doubles | None:
        """Q over (precision, unit) with rows of the reference, which are 0; (P * U, P * U).

        None where the model has too many pairs.
        """
        matrix = self.objective.interactions.matrix
        if matrix is None or self.objective.power != 1:
            return None
        precisions, units = self.choices.options.shape
        count = self.objective.layers
        free = np.flatnonzero(self.choices.unit_of >= 0)
        owner = self.choices.unit_of[free]
        full = np.zeros((precisions, units, precisions, units))
        got = self.choices.got(np.arange(precisions)[:, None], free)
        at, there = np.maximum(got - 1, 0) * count + free, got > 0
        for a in range(1, precisions):
            for b in range(1, precisions):
                block = matrix[np.ix_(at[a], at[b])] * np.logical_and.outer(there[a], there[b])
                if len(free) == units:
                    full[a, :, b, :] = block
                else:
                    np.add.at(full[a, :, b, :], np.ix_(owner, owner), block)
        return full.reshape(precisions * units, precisions * units)

    @cached_property
    def bend(self) -> Doubles:
        """Second-order cost of a unit's move from one precision to another (P, P, U)."""
        precisions, units = self.choices.options.shape
        if self.objective.power != 1:
            return np.zeros((precisions, precisions, units))
        if self.quadratic is None:
            own = self.objective.interactions.own.reshape(precisions - 1, -1)
            one = np.concatenate([np.zeros((1, own.shape[1])), own])
            unit = self.choices.summed(one)
            # the wider of two perturbations is nearly nothing beside the narrower one
            return np.asarray(np.abs(unit[:, None] - unit[None]))
        shaped = self.quadratic.reshape(precisions, units, precisions, units)
        every = np.arange(units)
        cross = shaped[:, every, :, every].transpose(1, 2, 0)  # [P, P, U]
        own = cross[np.arange(precisions), np.arange(precisions)]
        return np.asarray(own[:, None] + own[None] - 2 * cross)

    def added(self, codes: NDArray[np.int8]) -> Doubles:
        """Losses of the layers of maps (C, L), each alone, added up: (C,)."""
        rows = np.maximum(codes, 0)
        return np.asarray(self.objective.alone[rows, np.arange(codes.shape[1])].sum(axis=1))

    @cached_property
    def own_loss(self) -> Doubles:
        """What each unit adds to `added` in each precision (P, U)."""
        return self.choices.summed(self.objective.alone)

    def sizes_of(self, codes: NDArray[np.int8]) -> Doubles:
        """Bytes of maps (C, L) -> (C,)."""
        rows = np.maximum(codes, 0)
        picked = self.sizes[rows, np.arange(codes.shape[1])]
        return np.asarray(picked.sum(axis=1).astype(np.float64) + self.glue)

    @cached_property
    def pool(self) -> Pool:
        """Maps that are best for some price of a byte, a millisecond or both, loss added up."""
        found = [self._priced(self.size), self._chained()]
        size, ms = self.size, self.own_ms
        scaled = size / max(size.max(initial=0), 1e-300) + ms / max(ms.max(initial=0), 1e-300)
        found.append(self._priced(scaled))
        ends = [self._least(self.alone), self._least(size), self._least(ms)]
        picked = np.unique(np.concatenate([*found, np.stack(ends)]), axis=0)
        codes = self.choices.codes_of(picked)
        return Pool(
            codes, self.objective.costs(codes), self.sizes_of(codes), self.latency.times_ms(codes)
        )

    @cached_property
    def by_size(self) -> Knapsack:
        """The additive problem under any budget of bytes."""
        return knapsack(self.alone, self.size)

    @cached_property
    def by_ms(self) -> Knapsack:
        """The additive problem under any budget of milliseconds, boundaries left out."""
        return knapsack(self.alone, self.own_ms)

    def near(self, size: float, ms: float, loss: float) -> Pool:
        """Answers of the additive problem at and around budgets; inf where there is none."""
        found = [np.zeros((0, len(self.choices)), dtype=np.int64)]
        if np.isfinite(size):
            ruled = np.where(self.choices.unit_of < 0, np.maximum(self.choices.fixed, 0), 0)
            kept = self.sizes[ruled, np.arange(self.sizes.shape[1])][self.choices.unit_of < 0]
            found.append(self.by_size.near(size - self.glue - float(kept.sum())))
        if np.isfinite(ms):
            at = self.pool.ms.argsort()
            own = self._own(self.pool.codes[at])
            found.append(self.by_ms.near(float(np.interp(ms, self.pool.ms[at], own))))
        if np.isfinite(loss):
            found += [self.by_size.losing(loss), self.by_ms.losing(loss)]
        return self._best_of(np.unique(np.concatenate(found), axis=0), size, ms, loss)

    def around(self, codes: NDArray[np.int8], size: float, ms: float, loss: float) -> Pool:
        """As `near` for milliseconds, with the boundaries that a flip makes or unmakes in the map
        `codes` (L,) as part of its price.
        """
        here = float(self.latency.times_ms(codes[None])[0])
        shape = self.choices.options.shape
        code, unit = (every.ravel() for every in np.indices(shape))
        flipped = self.flipped_ms(self.choices.picked(codes), unit, code).reshape(shape)
        by_ms = knapsack(self.alone, flipped - here)
        found = [np.zeros((0, len(self.choices)), dtype=np.int64)]
        if np.isfinite(ms):
            found.append(by_ms.near(ms - here))
        if np.isfinite(loss):
            found.append(by_ms.losing(loss))
        return self._best_of(np.unique(np.concatenate(found), axis=0), size, ms, loss)

    def flipped_ms(self, picked: Ints, unit: Ints, codes: Ints) -> Doubles:
        """Milliseconds of the maps that differ from `picked` (U,) by one flip each (F,)."""
        together = max(1, MOST_CODES // max(len(self.choices.unit_of), 1))
        found = np.empty(len(unit))
        for start in range(0, len(unit), together):
            part = slice(start, start + together)
            rows = np.repeat(picked[None], len(unit[part]), axis=0)
            rows[np.arange(len(rows)), unit[part]] = codes[part]
            found[part] = self.latency.times_ms(self.choices.codes_of(rows))
        return found

    def _best_of(self, picked: Ints, size: float, ms: float, loss: float) -> Pool:
        """Of maps (M, U) the few that suit the budgets best."""
        codes = self.choices.codes_of(picked)
        sizes, times = self.sizes_of(codes), self.latency.times_ms(codes)
        # Losses take the time: only of what keeps the budgets, the least by addition first.
        guess = self.alone[picked, np.arange(len(self.choices))].sum(axis=1)
        over = (sizes > size) | (times > ms)
        best = np.lexsort((np.abs(guess - loss) if np.isfinite(loss) else guess, over))[:TRIED_NEAR]
        return Pool(codes[best], self.objective.costs(codes[best]), sizes[best], times[best])

    def _own(self, codes: NDArray[np.int8]) -> Doubles:
        """Milliseconds of units without boundaries, (M, L) -> (M,)."""
        picked = np.stack([self.choices.picked(row) for row in codes])
        return np.asarray(self.own_ms[picked, np.arange(len(self.choices))].sum(axis=1))

    def _least(self, figures: Doubles) -> Ints:
        """The open precision with the smallest figure, for each unit."""
        return np.asarray(np.where(self.choices.options, figures, np.inf).argmin(axis=0))

    def _prices(self, cost: Doubles) -> Doubles:
        """Prices of `cost` (P, U) from where nothing pays to where everything does."""
        open_cost = np.where(self.choices.options, cost, np.nan)
        loss = np.where(self.choices.options, self.alone, np.nan)
        if not open_cost.size:
            return np.zeros(1)
        saved = np.nanmax(open_cost, axis=0) - open_cost
        lost = loss - np.nanmin(loss, axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = (lost / saved)[(saved > 0) & (lost > 0)]
        ratio = ratio[np.isfinite(ratio)]
        if not len(ratio):
            return np.zeros(1)
        return np.concatenate([[0.0], np.geomspace(ratio.min() / 2, ratio.max() * 2, PRICES)])

    def _priced(self, cost: Doubles) -> Ints:
        """For each price the unit-wise best maps (prices, U)."""
        prices = self._prices(cost)
        total = self.alone[None] + prices[:, None, None] * cost[None]
        return np.asarray(total.argmin(axis=1))

    def _chained(self) -> Ints:
        """As `_priced` for latency, with the boundaries between units that follow each other.

        A dynamic programme over the units in order; edges that skip units are left out of it.
        """
        precisions, units = self.choices.options.shape
        prices = self._prices(self.own_ms)
        if units == 0:
            return np.zeros((len(prices), 0), dtype=np.int64)
        step = self._steps()  # [U, P, P]
        own = self.alone[None] + prices[:, None, None] * self.own_ms[None]  # [B, P, U]
        best = own[:, :, 0]
        back = np.zeros((len(prices), units, precisions), dtype=np.int64)
        for u in range(1, units):
            reached = best[:, :, None] + prices[:, None, None] * step[u][None]
            back[:, u] = reached.argmin(axis=1)
            best = reached.min(axis=1) + own[:, :, u]
        picked = np.zeros((len(prices), units), dtype=np.int64)
        picked[:, -1] = best.argmin(axis=1)
        rows = np.arange(len(prices))
        for u in range(units - 1, 0, -1):
            picked[:, u - 1] = back[rows, u, picked[:, u]]
        return picked

    def _steps(self) -> Doubles:
        """Milliseconds of the boundary from unit u - 1 to unit u by precision, (U, P, P)."""
        precisions, units = self.choices.options.shape
        crossings = self.latency.crossings()
        found = np.zeros((units, precisions, precisions))
        for source, target, ms in _through_joins(crossings, len(self.choices.unit_of)):
            u, v = self.choices.unit_of[source], self.choices.unit_of[target]
            if u >= 0 and v == u + 1:
                differ = crossings.leaves[:, source][:, None] != crossings.takes[:, target][None]
                found[v] += ms * differ
        return found


def _through_joins(crossings: Crossings, layers: int) -> list[tuple[int, int, float]]:
    """Edges between layers; what flows through joins counts once, from each layer into them."""
    into: dict[int, list[int]] = {}
    direct: list[tuple[int, int, float]] = []
    for source, target, ms in zip(
        crossings.sources.tolist(), crossings.targets.tolist(), crossings.ms.tolist(), strict=True
    ):
        if source < layers and target < layers:
            direct.append((source, target, ms))
        elif target < layers:
            direct += [(origin, target, ms) for origin in into.get(source, [])]
        else:
            into.setdefault(target, []).extend(
                [source] if source < layers else into.get(source, [])
            )
    return direct
