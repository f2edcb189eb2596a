"""Which flips and swaps of a map are worth a try: predictions from the slope and from Q."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.decide.limits import Task
from core.estimate.moves import Change, Place

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

TRIED = 8
"""Flips, and swaps, of an ordinary step whose true cost is computed."""
NEARLY = 0.02
RUNS = (2, 3, 4, 6, 9)
MAX_RUNS = 2_000
"""Runs of units, of these lengths, that are looked at."""
MAX_PAIRED = 700
"""Swaps are looked for among this many of the best flips."""


@dataclass(frozen=True, eq=False)
class Here:
    """A map with its figures; `picked` [U] are the precisions of the units, `over` is how far it
    lies beyond the limits.
    """

    place: Place
    size: float
    ms: float
    picked: Ints
    judged: float = np.nan
    over: float = 0.0


class Proposals:
    """Moves from a map, the most promising first for what a task asks."""

    def __init__(self, task: Task) -> None:
        self.task, self.terrain, self.limits = task, task.terrain, task.limits

    def changes(self, here: Here, tried: int, held: int = -1) -> list[Change]:
        """Up to `tried` flips and `tried` swaps, as layers with their new codes; none of unit
        `held`.
        """
        if not len(self.terrain.choices):
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
            self.terrain.choices.options & (np.arange(len(gains))[:, None] != here.picked)
        )
        goal = {
            "loss": gains,
            "size": self.terrain.size - self.terrain.size[here.picked, units],
            "latency": self.terrain.own_ms - self.terrain.own_ms[here.picked, units],
        }[self.task.minimise][codes, unit]
        paying = np.flatnonzero(goal < 0)
        order = paying[np.argsort(goal[paying], kind="stable")]
        return [(int(unit[k]), int(codes[k])) for k in order]

    def _gains(self, here: Here) -> Doubles:
        """Predicted change of the cost by precision and unit (P, U)."""
        units = np.arange(len(self.terrain.choices))
        gains = self.terrain.choices.summed(self.terrain.objective.gains(here.place))
        return np.asarray(gains + self.terrain.bend[here.picked, :, units].T)

    def _change(self, units: Ints, codes: Ints) -> Change:
        members = self.terrain.choices.members
        layers = np.concatenate([members[u] for u in units])
        given = [np.full(len(members[u]), c) for u, c in zip(units, codes, strict=True)]
        return layers, np.concatenate(given)

    def _moves(self, here: Here, tried: int, held: int) -> list[tuple[Ints, Ints]]:
        """The most promising flips and swaps, as (units, codes)."""
        terrain, choices = self.terrain, self.terrain.choices
        gains = self._gains(here)
        movable = choices.options & (np.arange(len(gains))[:, None] != here.picked)
        if held >= 0:
            movable[:, held] = False
        codes, unit = np.nonzero(movable)
        loss = gains[codes, unit]
        size = terrain.size[codes, unit] - terrain.size[here.picked[unit], unit]
        if len(loss) > MAX_PAIRED:
            keep = self._worth(here, loss, size, terrain.own_ms[codes, unit]
                               - terrain.own_ms[here.picked[unit], unit])  # fmt: skip
            codes, unit, loss, size = codes[keep], unit[keep], loss[keep], size[keep]
        if not len(unit):
            return []
        ms = self._times(here, unit, codes) - here.ms
        single = self._promising(here, loss, size, ms, tried)
        found = [(unit[[k]], codes[[k]]) for k in single]
        first, second = np.triu_indices(len(unit), 1)
        apart = unit[first] != unit[second]
        first, second = first[apart], second[apart]
        both = loss[first] + loss[second]
        if terrain.quadratic is not None:
            both = both + self._cross(here, unit, codes)[first, second]
        pairs = self._promising(
            here, both, size[first] + size[second], ms[first] + ms[second], tried
        )
        found += [
            (
                np.array([unit[first[k]], unit[second[k]]]),
                np.array([codes[first[k]], codes[second[k]]]),
            )
            for k in pairs
        ]
        timed = np.isfinite(self.limits.ms) or self.task.minimise == "latency"
        if tried > TRIED and timed and held < 0:
            found += self._runs(here, gains, tried)
        return found

    def _runs(self, here: Here, gains: Doubles, tried: int) -> list[tuple[Ints, Ints]]:
        """Runs of units that follow each other, put into one precision: what boundaries price."""
        terrain, choices = self.terrain, self.terrain.choices
        units = len(choices)
        lengths = [n for n in RUNS if n < units]
        while len(lengths) > 1 and len(lengths) * len(gains) * units > MAX_RUNS:
            lengths.pop()
        every = [
            (np.arange(start, start + n), np.full(n, code))
            for n in lengths
            for start in range(units - n + 1)
            for code in range(len(gains))
            if choices.options[code, start : start + n].all()
        ][:MAX_RUNS]
        if not every:
            return []
        loss = np.array([gains[codes, run].sum() for run, codes in every])
        size = np.array(
            [(terrain.size[codes, run] - terrain.size[here.picked[run], run]).sum()
             for run, codes in every]
        )  # fmt: skip
        rows = np.repeat(here.place.codes[None], len(every), axis=0)
        for row, (run, codes) in zip(rows, every, strict=True):
            layers, given = self._change(run, codes)
            row[layers] = given
        ms = terrain.latency.times_ms(rows) - here.ms
        return [every[k] for k in self._promising(here, loss, size, ms, tried)]

    def _worth(self, here: Here, loss: Doubles, size: Doubles, ms: Doubles) -> Ints:
        """The flips that help most, those that save most per loss among them."""
        half = MAX_PAIRED // 3
        price = np.maximum(loss, 1e-15)
        found = [
            np.argsort(loss)[:half],
            np.argsort(size / price)[:half],
            np.argsort(ms / price)[:half],
        ]
        return np.unique(np.concatenate(found))

    def _cross(self, here: Here, unit: Ints, codes: Ints) -> Doubles:
        """Second-order cost of making two moves together beyond that of each (M, M)."""
        q = self.terrain.quadratic
        assert q is not None
        count = len(self.terrain.choices)
        to, back = codes * count + unit, here.picked[unit] * count + unit
        shift = q[to] - q[back]
        return np.asarray(2 * (shift[:, to] - shift[:, back]))

    def _times(self, here: Here, unit: Ints, codes: Ints) -> Doubles:
        rows = np.repeat(here.place.codes[None], len(unit), axis=0)
        members = self.terrain.choices.members
        for row, u, c in zip(rows, unit, codes, strict=True):
            row[members[u]] = c
        return self.terrain.latency.times_ms(rows)

    def _promising(self, here: Here, loss: Doubles, size: Doubles, ms: Doubles, tried: int) -> Ints:
        """Positions of the moves to try, by what is predicted of them."""
        if not len(loss):
            return np.zeros(0, np.int64)
        # A prediction of the loss is rough: what misses the limit by little is tried as well.
        guessed = here.place.cost + loss - NEARLY * max(self.limits.loss, 0.0)
        guessed = guessed if np.isfinite(self.limits.loss) else loss
        over = self.limits.over(here.size + size, here.ms + ms, guessed)
        goal = {"loss": loss, "size": size, "latency": ms}[self.task.minimise]
        tried = min(tried, len(loss))
        if self.task.minimise == "loss":
            return self._lowest(over, goal, tried)
        improving = np.where(
            (goal < 0) | ((goal <= 0) & (loss < 0)) | (here.over > 0), over, np.inf
        )
        most_saved = self._lowest(improving, goal, tried)
        # what saves much may lose too much: the cheapest for what they save are tried as well
        rate = np.where(goal < 0, loss / np.minimum(goal, -1e-300) * -1, np.inf)
        rate = np.where(loss <= 0, loss, rate)
        cheap = self._lowest(improving, rate, tried)
        both = np.unique(np.concatenate([most_saved, cheap]))
        return np.asarray(both[np.isfinite(improving[both])])

    @staticmethod
    def _lowest(over: Doubles, goal: Doubles, count: int) -> Ints:
        """Positions of the `count` smallest goals among the smallest excess."""
        kept = np.flatnonzero(over <= 0)
        if len(kept) > count:
            return kept[np.argpartition(goal[kept], count - 1)[:count]]
        if len(kept):
            return kept
        count = min(count, len(over))
        return np.argpartition(over, count - 1)[:count]
