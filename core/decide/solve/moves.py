"""Which flips and swaps of a map are worth a try: predictions from the slope and from Q."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from core.decide.policy.budget import Axis
from core.decide.solve.problem import Figures, Task
from core.estimate.map_objective import Change, Place

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Key = tuple[float, float]
"""Predicted excess over the limits, and predicted change of what is minimised."""
Move = tuple[Key, Ints, Ints]

TRIED = 8
"""Flips, and swaps, of an ordinary step whose true cost is computed."""
NEARLY = 0.02
"""Share of a limit on the loss by which a prediction may be off."""
RUNS = (2, 3, 4, 6, 9)
MAX_RUNS = 2_000
"""Runs of units, of these lengths, that are looked at."""
QUICKLY_PAIRED, MAX_PAIRED = 240, 700
"""Swaps are looked for among this many of the best flips, in ordinary and in thorough steps."""


@dataclass(frozen=True, eq=False)
class Here:
    """A map with its figures; `picked` [U] are the precisions of the units, `loss` is what a task
    makes of its projected cost, `over` how far it lies beyond the limits.
    """

    place: Place
    size: float
    ms: float
    picked: Ints
    loss: float
    over: float = 0.0


class Moves:
    """Moves from a map, the most promising first for what a task asks."""

    def __init__(self, task: Task) -> None:
        self.task, self.tables, self.limits = task, task.tables, task.limits
        self._kept: list[tuple[Place, Doubles]] = []

    def changes(self, here: Here, tried: int, held: int = -1) -> list[Change]:
        """Up to `tried` flips and `tried` swaps, as layers with their new codes, the most
        promising first; none of unit `held`.
        """
        if not len(self.tables.choices):
            return []
        return [self._change(units, codes) for units, codes in self._moves(here, tried, held)]

    def flip(self, unit: int, code: int) -> Change:
        """One unit's move, as layers with their new codes."""
        return self._change(np.array([unit]), np.array([code]))

    def forced(self, here: Here) -> list[tuple[int, int]]:
        """Flips (unit, code) that would pay if nothing were limited, the best first."""
        gains = self._gains(here)
        units = np.arange(gains.shape[1])
        codes, unit = np.nonzero(
            self.tables.choices.options & (np.arange(len(gains))[:, None] != here.picked)
        )
        goal = {
            "loss": np.asarray(self.task.weighed(gains, self._added(here))),
            "size": self.tables.size - self.tables.size[here.picked, units],
            "latency": self.tables.own_ms - self.tables.own_ms[here.picked, units],
        }[self.task.minimise][codes, unit]
        paying = np.flatnonzero(goal < -1e-12 * max(abs(here.loss), 1e-12))
        order = paying[np.argsort(goal[paying], kind="stable")]
        return [(int(unit[k]), int(codes[k])) for k in order]

    def blocked(self, here: Here) -> set[Axis]:
        """The axes whose limits keep a flip away that would pay: those that bind."""
        forced = self.forced(here) if len(self.tables.choices) else []
        if not forced:
            return set()
        unit, codes = (np.array(part) for part in zip(*forced, strict=True))
        size = here.size + self.tables.size[codes, unit] - self.tables.size[here.picked[unit], unit]
        loss = here.place.cost + self._gains(here)[codes, unit]
        found: set[Axis] = {"size"} if (size > self.limits.size).any() else set()
        if np.isfinite(self.limits.ms):
            ms = self.tables.flipped_ms(here.picked, unit, codes)
            if (ms > self.limits.ms).any():
                found.add("latency")
        if (loss > self.limits.loss).any():
            found.add("loss")
        if np.isfinite(self.limits.judged) and self.task.minimise != "loss":
            found.add("loss")  # what a flip loses in points is only known by projecting it
        return found

    def _added(self, here: Here) -> Doubles:
        """Change of the sum of the layers' own losses by precision and unit (P, U)."""
        own = self.tables.own_loss
        return np.asarray(own - own[here.picked, np.arange(own.shape[1])])

    def _gains(self, here: Here) -> Doubles:
        """Predicted change of the cost by precision and unit (P, U); kept for the last maps."""
        for place, gains in self._kept:
            if place is here.place:
                return gains
        units = np.arange(len(self.tables.choices))
        gains = self.tables.choices.summed(self.tables.objective.gains(here.place))
        gains = gains + self.tables.bend[here.picked, :, units].T
        self._kept = [(here.place, gains), *self._kept[:2]]
        return gains

    def _change(self, units: Ints, codes: Ints) -> Change:
        members = self.tables.choices.members
        layers = np.concatenate([members[u] for u in units])
        given = [np.full(len(members[u]), c) for u, c in zip(units, codes, strict=True)]
        return layers, self.tables.choices.got(np.concatenate(given), layers)

    def _moves(self, here: Here, tried: int, held: int) -> list[tuple[Ints, Ints]]:
        """The most promising flips and swaps, as (units, codes)."""
        tables, choices = self.tables, self.tables.choices
        gains = self._gains(here)
        movable = choices.options & (np.arange(len(gains))[:, None] != here.picked)
        if held >= 0:
            movable[:, held] = False
        codes, unit = np.nonzero(movable)
        loss, added = gains[codes, unit], self._added(here)[codes, unit]
        size = tables.size[codes, unit] - tables.size[here.picked[unit], unit]
        most = QUICKLY_PAIRED if tried <= TRIED else MAX_PAIRED
        if len(loss) > most:
            own = tables.own_ms[codes, unit] - tables.own_ms[here.picked[unit], unit]
            keep = _worth(most, loss, size, own)
            codes, unit, loss, size = codes[keep], unit[keep], loss[keep], size[keep]
            added = added[keep]
        if not len(unit):
            return []
        ms = np.zeros(len(unit))
        if self.task.timed:
            ms = tables.flipped_ms(here.picked, unit, codes) - here.ms
        found = [
            (key, unit[[k]], codes[[k]])
            for key, k in self._promising(
                here, loss, size, ms, tried, self.task.weighed(loss, added)
            )
        ]
        first, second = np.triu_indices(len(unit), 1)
        apart = unit[first] != unit[second]
        first, second = first[apart], second[apart]
        both = loss[first] + loss[second]
        if tables.quadratic is not None:
            both = both + self._cross(here, unit, codes)[first, second]
        pairs = self._promising(
            here, both, size[first] + size[second], ms[first] + ms[second], tried,
            self.task.weighed(both, added[first] + added[second]),
        )  # fmt: skip
        for key, k in pairs:
            two = np.array([first[k], second[k]])
            found.append((key, unit[two], codes[two]))
        if tried > TRIED and self.task.timed and held < 0:
            found += self._runs(here, gains, tried)
        found.sort(key=lambda move: move[0])
        return [(units, given) for _, units, given in found]

    def _runs(self, here: Here, gains: Doubles, tried: int) -> list[Move]:
        """Runs of units that follow each other, put into one precision: what boundaries price."""
        tables, choices = self.tables, self.tables.choices
        starts, lengths, codes = self.every_run
        if not len(starts):
            return []
        ends = starts + lengths
        gained = np.concatenate([np.zeros((len(gains), 1)), gains.cumsum(axis=1)], axis=1)
        units = np.arange(len(choices))
        grown = tables.size - tables.size[here.picked, units]
        stored = np.concatenate([np.zeros((len(gains), 1)), grown.cumsum(axis=1)], axis=1)
        loss = gained[codes, ends] - gained[codes, starts]
        size = stored[codes, ends] - stored[codes, starts]
        own = np.concatenate([np.zeros((len(gains), 1)), self._added(here).cumsum(axis=1)], axis=1)
        worth = self.task.weighed(loss, own[codes, ends] - own[codes, starts])
        inside = (units >= starts[:, None]) & (units < ends[:, None])
        rows = choices.codes_of(np.where(inside, codes[:, None], here.picked))
        ms = tables.latency.times_ms(rows) - here.ms
        return [
            (key, np.arange(starts[k], ends[k]), np.full(lengths[k], codes[k]))
            for key, k in self._promising(here, loss, size, ms, tried, worth)
        ]

    @cached_property
    def every_run(self) -> tuple[Ints, Ints, Ints]:
        """Starts, lengths and codes of the runs of units that may move together."""
        options = self.tables.choices.options
        precisions, units = options.shape
        lengths = [n for n in RUNS if n < units]
        while len(lengths) > 1 and len(lengths) * precisions * units > MAX_RUNS:
            lengths.pop()
        every = [
            (start, n, code)
            for n in lengths
            for start in range(units - n + 1)
            for code in range(precisions)
            if options[code, start : start + n].all()
        ][:MAX_RUNS]
        starts, counts, codes = np.array(every, dtype=np.int64).reshape(-1, 3).T
        return starts, counts, codes

    def _cross(self, here: Here, unit: Ints, codes: Ints) -> Doubles:
        """Second-order cost of making two moves together beyond that of each (M, M)."""
        q = self.tables.quadratic
        assert q is not None
        count = len(self.tables.choices)
        to, back = codes * count + unit, here.picked[unit] * count + unit
        shift = q[to] - q[back]
        return np.asarray(2 * (shift[:, to] - shift[:, back]))

    def _promising(
        self, here: Here, loss: Doubles, size: Doubles, ms: Doubles, tried: int, worth: Figures
    ) -> list[tuple[Key, int]]:
        """The moves to try, with what is predicted of them and their position."""
        if not len(loss):
            return []
        # A prediction of the loss is rough: what misses the limit by little is tried as well.
        guessed = here.place.cost + loss - NEARLY * max(self.limits.loss, 0.0)
        guessed = guessed if np.isfinite(self.limits.loss) else loss
        over = self.limits.over(here.size + size, here.ms + ms, guessed)
        goal = {"loss": np.asarray(worth), "size": size, "latency": ms}[self.task.minimise]
        if here.over > 0:
            pays = np.ones(len(loss), np.bool_)
        elif self.task.minimise == "loss":  # predicted roughly, unlike a cost: any may pay
            pays = over <= 0
        else:
            pays = (goal < 0) | ((goal <= 0) & (loss < 0))
        if here.over > 0 and self.limits.over(here.size, here.ms, here.place.cost) <= 0:
            goal = loss  # a projection alone breaks a limit: what loses less comes first
        at = np.flatnonzero(pays)
        best = at[self._lowest(over[at], goal[at], tried)]
        return [((float(over[k]), float(goal[k])), int(k)) for k in best]

    @staticmethod
    def _lowest(over: Doubles, goal: Doubles, count: int) -> Ints:
        """Positions of the `count` smallest goals among the smallest excess."""
        kept = np.flatnonzero(over <= 0)
        if len(kept) > count:
            return np.asarray(kept[np.argpartition(goal[kept], count - 1)[:count]])
        if len(kept):
            return kept
        return np.argsort(over, kind="stable")[:count]


def _worth(count: int, loss: Doubles, size: Doubles, ms: Doubles) -> Ints:
    """The flips that help most, and those that save most per loss; `count` of them at most."""
    price = np.maximum(loss, 1e-15)
    orders = (loss, size / price, ms / price)
    return np.unique(np.concatenate([np.argsort(order)[: count // 3] for order in orders]))
