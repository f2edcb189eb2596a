"""The best map under limits: steepest descent by flips and swaps from additive starts.

Every step predicts what each flip of a unit and each pair of flips would change, from the slope
of the projected cost at the map at hand and the interactions Q, and tries the most promising on
the true projected cost, the true bytes and the true milliseconds with boundaries. What is
returned was evaluated, not predicted. Where a budget is tight, a second stage looks further.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from core.decide.policy.budget import Axis
from core.decide.solve.moves import TRIED, Here, Moves
from core.decide.solve.problem import SLACK, Task
from core.decide.solve.starts import starts
from core.estimate.map_objective import Change, Place

Doubles = NDArray[np.float64]
Codes = NDArray[np.int8]
Merit = tuple[float, float, float]
"""Excess over the limits, what is minimised, and what breaks ties: less is better, from the left."""

THOROUGH = 64
THOROUGH_ELEMENTS = 150_000
"""Moves tried where a descent has ended, before it is believed: as many as this many outputs allow."""
KICK_ELEMENTS = 600_000
MAX_KICKS, KICK_STEPS = 24, 6
"""Flips that are forced where a budget is tight, by the numbers that evaluating them takes."""
TOGETHER = 4
"""Moves that are evaluated before the best of them is taken, if it improves."""
STARTS, STARTS_OF_FEW = 2, 4
FEW_UNITS = 16
"""Starts in all where a budget is tight, and of so few units."""
STRONG = 2.0
"""Interactions matter where the projected loss is this many times the layers' own, or its inverse."""
MANY_UNITS = 400
"""Beyond this many units there is no second stage: no slider could wait for it."""
STEPS = 200
HALVINGS, LEAST_SHARE = 6, 1e-4
"""Times that a limit on the objective is halved, by its logarithm, down to this share of the loss that
nothing limits, where the projection checks a limit."""


@dataclass(frozen=True, eq=False)
class SearchResult:
    """A map with its figures. `feasible` says whether it keeps every limit. `binding` are the
    axes whose limits keep a flip away that would pay.
    """

    codes: Codes
    loss: float
    size: float
    ms: float
    feasible: bool
    steps: int
    binding: frozenset[Axis]


def search(task: Task, given: Codes | None = None) -> SearchResult:
    """The best map that was found; infeasible only if no feasible one was.

    `given` (L,) is a map to start from beside the search's own. The same task gives the same map
    every time.
    """
    return _Search(task).run(given)


class _Search:
    def __init__(self, task: Task) -> None:
        self.task, self.tables, self.limits = task, task.tables, task.limits
        self.moves = Moves(task)
        self.steps = 0
        self._judged: dict[bytes, float] = {}

    def run(self, given: Codes | None) -> SearchResult:
        own = starts(self.task, STARTS_OF_FEW, self._beyond)
        best = self._best_end(own[:1] if given is None else [given, own[0]])
        if self._is_tight(best):
            more = own[1 : STARTS_OF_FEW if self._few else STARTS]
            best = self._settle(self._best_end([*more, *self._approached(best)], best))
            best = self._tightened(self._kicked(best))
        best = self._cheapest(best)
        codes = best.place.codes
        ms = float(self.tables.latency.times_ms(codes[None])[0])
        return SearchResult(
            codes, best.place.cost, best.size, ms, best.over <= 0, self.steps,
            frozenset(self.moves.blocked(best)),
        )  # fmt: skip

    def _is_tight(self, here: Here) -> bool:
        """Whether the start can be far from the best map, so that looking further pays.

        The additive start is exact for the least loss under one limit on size or latency if losses
        add up. It is not where two limits bind, where a cost is minimised under one, where
        interactions change the loss much, or where a flip is a large part of the budget: with few
        units.
        """
        if here.over > 0 or self._few:
            return True
        binding = self.moves.blocked(here)
        if not binding or len(self.tables.choices) > MANY_UNITS:
            return False
        if len(binding) > 1 or self.task.minimise != "loss" or "loss" in binding:
            return True
        added = float(self.tables.added(here.place.codes[None])[0])
        return not added / STRONG <= here.place.cost <= added * STRONG

    @property
    def _few(self) -> bool:
        return len(self.tables.choices) <= FEW_UNITS

    # ---- merit

    def _beyond(self, codes: Codes) -> float:
        """How far the loss of a map lies beyond a budget that is checked by projection."""
        if not np.isfinite(self.limits.judged):
            return 0.0
        beyond = self._judge(codes) - self.limits.judged
        return beyond if beyond > SLACK else 0.0

    def _judge(self, codes: Codes) -> float:
        if self.task.judge is None:
            return float("nan")
        key = codes.tobytes()
        if key not in self._judged:
            self._judged[key] = self.task.judge(codes)
        return self._judged[key]

    def _merit(self, here: Here) -> Merit:
        return self._ranked(here.over, here.size, here.ms, here.loss)

    def _ranked(self, over: float, size: float, ms: float, loss: float) -> Merit:
        if self.task.minimise == "loss":
            return over, loss, size
        return over, size if self.task.minimise == "size" else ms, loss

    def _at(self, codes: Codes) -> Here:
        return self._here(self.tables.objective.place(codes))

    def _here(self, place: Place) -> Here:
        codes = place.codes
        size = float(self.tables.sizes_of(codes[None])[0])
        ms = float(self._times(codes[None])[0])
        over = float(self.limits.over(size, ms, place.cost)) + self._beyond(codes)
        picked = self.tables.choices.picked(codes)
        loss = float(self.task.weighed(place.cost, self.tables.added(codes[None])[0]))
        return Here(place, size, ms, picked, loss, over)

    def _times(self, codes: NDArray[np.int8]) -> Doubles:
        """Latency of maps (C, L); 0 where it does not matter, since it takes time."""
        return self.tables.latency.times_ms(codes) if self.task.timed else np.zeros(len(codes))

    # ---- limits that only a projection checks

    def _approached(self, best: Here) -> list[Codes]:
        """Maps to start from where a limit is checked by projection: the additive answers to limits
        on the objective on both sides of where the projection begins to break it, found by halving.

        What is projected jumps from map to map, which no move foresees; the objective does not.
        """
        if not np.isfinite(self.limits.judged) or best.over > 0:
            return []
        here = self._within(np.inf)
        if self._beyond(here.codes) <= 0:
            return [here.codes]
        broken, kept = here, best.place
        least = max(best.place.cost, broken.cost * LEAST_SHARE)
        for _ in range(HALVINGS):
            here = self._within(float(np.sqrt(least * broken.cost)))
            if self._beyond(here.codes) <= 0:
                least, kept = max(here.cost, least), here
            elif here.cost < broken.cost:
                broken = here
            else:
                break
        return [kept.codes, broken.codes]

    def _within(self, most: float) -> Place:
        """The additive answer if the objective were limited in place of its projection."""
        self.task.check()
        limits = replace(self.limits, loss=most, judged=np.inf)
        task = replace(self.task, limits=limits, judge=None)
        return self.tables.objective.place(starts(task, 1, self._beyond)[0])

    # ---- equal answers

    def _cheapest(self, best: Here) -> Here:
        """Of the maps that are as good as `best` in what is minimised the cheaper one: in latency,
        then in bytes, then in loss.
        """
        if best.over > 0 or not len(self.tables.choices):
            return best
        if self.task.minimise == "loss":
            return self._alike(best)
        limits, goal = self.limits, self.task.minimise
        if goal == "size":
            other = replace(self.task, minimise="latency", limits=replace(limits, size=best.size))
        else:
            other = replace(self.task, minimise="size", limits=replace(limits, ms=best.ms))
        search_on = _Search(other)
        search_on._judged = self._judged
        here = search_on._settle(search_on._descend(search_on._at(best.place.codes)))
        return self._at(here.place.codes)

    def _alike(self, best: Here) -> Here:
        """Move units, and runs of neighbours, to precisions that lose the same, while that makes the
        map faster, or smaller and no slower.
        """
        while True:
            rows = self._losing_alike(best)
            if not len(rows):
                return best
            codes = self.tables.choices.codes_of(rows)
            ms, size = self.tables.latency.times_ms(codes), self.tables.sizes_of(codes)
            now = (float(self.tables.latency.times_ms(best.place.codes[None])[0]), best.size)
            for k in np.lexsort((size, ms)):
                if not _less((ms[k], size[k]), now):
                    return best
                here = self._at(codes[k])
                if here.over <= 0 and not _less((best.loss,), (here.loss,)):
                    best = here
                    break
            else:
                return best

    def _losing_alike(self, best: Here) -> NDArray[np.int64]:
        """Precisions of the units (M, U) of maps a move away whose units lose by themselves what
        they do in `best`.
        """
        alone = self.tables.alone
        units = np.arange(alone.shape[1])
        alike = np.abs(alone - alone[best.picked, units]) <= 1e-9 * abs(best.loss)
        alike &= self.tables.choices.options
        moved = alike & (np.arange(len(alike))[:, None] != best.picked)
        found = []
        for code, unit in np.argwhere(moved):
            found.append(np.where(units == unit, code, best.picked))
        if not found:
            return np.zeros((0, len(units)), dtype=np.int64)
        for start, length, code in zip(*self.moves.every_run, strict=True):
            run = slice(start, start + length)
            if alike[code, run].all() and moved[code, run].sum() > 1:
                inside = (units >= start) & (units < start + length)
                found.append(np.where(inside, code, best.picked))
        return np.stack(found)

    # ---- descent

    def _best_end(self, maps: list[Codes], best: Here | None = None) -> Here:
        """`best`, or the end of the descents from `maps` where that is better."""
        ends = [self._descend(self._at(codes)) for codes in maps]
        return min((*([best] if best else []), *ends), key=self._merit)

    def _descend(self, here: Here) -> Here:
        for _ in range(STEPS):
            better = self._step(here, TRIED)
            if better is None:
                break
            here = better
        return here

    def _settle(self, here: Here) -> Here:
        """Descend on from better maps among many more moves, until there are none."""
        tried = THOROUGH_ELEMENTS // max(here.place.sums.shape[1], 1)
        tried = min(max(tried, 2 * TRIED), THOROUGH)
        for _ in range(STEPS):
            better = self._step(here, tried)
            if better is None:
                break
            here = self._descend(better)
        return here

    def _kicked(self, best: Here) -> Here:
        """Force one flip at a time that pays but breaks a limit, and repair what it broke.

        Chains of moves lead where no pair does. How many are forced depends on what they cost.
        """
        tried: set[tuple[int, int]] = set()
        for _ in range(self._kicks(best)):
            forced = next((f for f in self.moves.forced(best) if f not in tried), None)
            if forced is None:
                break
            tried.add(forced)
            change = self.moves.flip(*forced)
            here = self._here(self.tables.objective.after(best.place, change))
            for _ in range(KICK_STEPS):
                better = self._step(here, TRIED, held=forced[0])
                if better is None:
                    break
                here = better
                if _less(self._merit(here), self._merit(best)):
                    break
            if _less(self._merit(here), self._merit(best)):
                best = self._settle(here)
        return best

    def _kicks(self, here: Here) -> int:
        per_kick = max(int(here.place.sums.shape[1]) * len(self.tables.choices), 1)
        return min(max(KICK_ELEMENTS // per_kick, 1), MAX_KICKS)

    def _tightened(self, best: Here) -> Here:
        """Where a cost is minimised: the least loss for a cost just below.

        If that keeps the limits, the map is better. The loss is the smoother thing to minimise.
        """
        if self.task.minimise == "loss":
            return best
        for _ in range(MAX_KICKS):
            if best.over > 0:
                break
            limits = replace(self.limits, loss=np.inf, judged=np.inf)
            if self.task.minimise == "size":
                limits = replace(limits, size=best.size - 1)
            else:
                limits = replace(limits, ms=best.ms * (1 - 1e-6))
            found = search(Task(self.tables, "loss", limits, should_stop=self.task.should_stop))
            here = self._at(found.codes)
            if not _less(self._merit(here), self._merit(best)):
                break
            best = self._settle(here)
        return best

    def _step(self, here: Here, tried: int, held: int = -1) -> Here | None:
        """The best of the moves tried if it improves on `here`; unit `held` stays as it is."""
        self.task.check()
        self.steps += 1
        changes = self.moves.changes(here, tried, held)
        together = TOGETHER if tried <= TRIED else 2 * TOGETHER
        for start in range(0, len(changes), together):
            better = self._best_of(here, changes[start : start + together])
            if better is not None:
                return better
        return None

    def _best_of(self, here: Here, changes: list[Change]) -> Here | None:
        """The best of some moves if it improves on `here`."""
        losses = self.tables.objective.moved(here.place, changes)
        rows = np.repeat(here.place.codes[None], len(changes), axis=0)
        for row, (layers, codes) in zip(rows, changes, strict=True):
            row[layers] = codes
        sizes = self.tables.sizes_of(rows)
        times = self._times(rows)
        over = self.limits.over(sizes, times, losses)
        goal = np.asarray(self.task.weighed(losses, self.tables.added(rows)))
        merits = [
            self._ranked(*(float(x) for x in figures))
            for figures in zip(over, sizes, times, goal, strict=True)
        ]
        now = self._merit(here)
        for merit, k in sorted((merit, k) for k, merit in enumerate(merits)):
            if not _less(merit, now):
                return None
            total = (merit[0] + self._beyond(rows[k]), *merit[1:])
            if _less(total, now):
                return self._here(self.tables.objective.after(here.place, changes[k]))
        return None


def _less(left: Sequence[float], right: Sequence[float]) -> bool:
    """Whether `left` is smaller by more than rounding, read from the left."""
    for a, b in zip(left, right, strict=True):
        margin = 1e-9 * max(abs(a), abs(b))
        if a < b - margin:
            return True
        if a > b + margin:
            return False
    return False
