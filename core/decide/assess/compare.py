"""Strategies side by side: differences from a reference, layers that differ, who beats whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from core.decide.assess.difference import Change, difference
from core.decide.assess.gains import Gain, gains
from core.decide.assess.loss import CLASSES, loss_figures
from core.decide.assess.outcome import Outcome, outcome
from core.decide.assess.pareto import Point, dominates, pareto_front
from core.decide.policy.decision import PrecisionMap
from core.decide.study import Study
from core.errors import MapError, PolicyError
from core.quantity import digits, written

Cost = Literal["size", "latency"]
COSTS: tuple[Cost, ...] = get_args(Cost)
TOTAL_OF: Mapping[Cost, str] = {"size": "size_bytes", "latency": "latency_ms"}
"""The total that each cost reads; of both, less is better."""

SAME_MAP = "The strategies give the same map."


@dataclass(frozen=True, eq=False, slots=True)
class Strategy:
    """A named map with its figures."""

    name: str
    map: PrecisionMap
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class DifferingLayer:
    """A layer that not all strategies treat alike: its precision, stored bytes and typical
    milliseconds under each, in the order of the strategies.
    """

    index: int
    layer: str
    role: str
    precisions: tuple[str | None, ...]
    size_bytes: tuple[int, ...]
    latency_ms: tuple[float, ...]

    def size_changes(self, place: int) -> tuple[int, ...]:
        """Bytes of each strategy less those of the one at `place`."""
        return tuple(size - self.size_bytes[place] for size in self.size_bytes)

    def latency_changes(self, place: int) -> tuple[float, ...]:
        """Milliseconds of each strategy less those of the one at `place`."""
        return tuple(time - self.latency_ms[place] for time in self.latency_ms)


@dataclass(frozen=True, slots=True)
class ComparedStrategy:
    """One strategy against the reference.

    `gains` is the change of every total (this less the reference), `changes` the layers whose
    precision differs from the reference's. `precisions`, `size_bytes` and `latency_ms` speak of
    the layers that differ between any of the strategies; the latter two leave out boundaries.
    """

    name: str
    gains: dict[str, Gain]
    changes: tuple[Change, ...]
    precisions: dict[str, int]
    size_bytes: int
    latency_ms: float

    @property
    def part(self) -> str:
        """What the layers that differ take of the whole map, as "0.42 of 3.10 MB exact, ..."."""
        size, time = (self.gains[name].after for name in ("size_bytes", "latency_ms"))
        return (
            f"{digits(self.size_bytes, 'bytes')} of {written(size, 'bytes')} exact, "
            f"{digits(self.latency_ms, 'ms')} of {written(time, 'ms')} estimated"
        )


@dataclass(frozen=True, slots=True)
class Dominance:
    """`winner` is no worse than `loser` in loss and in `cost`, and better in one of them."""

    loser: str
    winner: str
    cost: Cost


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that is to be said of several strategies. `fronts` names, for each cost, those that
    no other one dominates; a strategy with an unknown loss is on no front. `equal` groups the
    names of strategies with the same map.
    """

    reference: str
    hardware: str
    columns: tuple[ComparedStrategy, ...]
    layers: tuple[DifferingLayer, ...]
    dominances: tuple[Dominance, ...]
    fronts: dict[Cost, tuple[str, ...]]
    equal: tuple[tuple[str, ...], ...]

    def beaten(self, name: str) -> dict[Cost, tuple[str, ...]]:
        """Who dominates `name`, by cost; empty tuples where no one does."""
        return {
            cost: tuple(d.winner for d in self.dominances if (d.loser, d.cost) == (name, cost))
            for cost in COSTS
        }

    def beaten_by(self, name: str) -> dict[str, tuple[Cost, ...]]:
        """Who dominates `name`, each with the costs in which it does."""
        found: dict[str, tuple[Cost, ...]] = {}
        for d in self.dominances:
            if d.loser == name:
                found[d.winner] = (*found.get(d.winner, ()), d.cost)
        return found

    def same_as(self, name: str) -> tuple[str, ...]:
        """The other strategies with the map of `name`."""
        group = next((group for group in self.equal if name in group), ())
        return tuple(other for other in group if other != name)

    @property
    def place(self) -> int:
        """Place of the reference among the columns."""
        return [column.name for column in self.columns].index(self.reference)

    @property
    def headline(self) -> str:
        """As "7 layers differ; without boundaries they take 0.420 to 3.100 MB and ..."."""
        if not self.layers:
            return SAME_MAP
        sizes = [column.size_bytes for column in self.columns]
        times = [column.latency_ms for column in self.columns]
        layers = "1 layer differs; it takes" if len(self.layers) == 1 else (
            f"{len(self.layers):,} layers differ; they take"
        )  # fmt: skip
        return (
            f"{layers} {digits(min(sizes), 'bytes')} to {written(max(sizes), 'bytes')} and, "
            f"boundaries left out, {digits(min(times), 'ms')} to {written(max(times), 'ms')}."
        )


def strategy(
    study: Study, name: str, chosen: PrecisionMap, hardware: str | None = None
) -> Strategy:
    """`chosen` with its figures, on `hardware` in place of its own device where one is given."""
    if hardware is not None and hardware != chosen.policy.hardware:
        chosen = replace(chosen, policy=replace(chosen.policy, hardware=hardware))
    return Strategy(name, chosen, outcome(study, chosen))


def compare(strategies: Sequence[Strategy], reference: str) -> Comparison:
    """Compare `strategies` of one model with the one called `reference`.

    Raises `PolicyError` for names that are unknown or not unique and for different hardware,
    `MapError` for maps of different layers.
    """
    chosen = _checked(strategies, reference)
    codes = np.stack([s.map.codes for s in strategies])
    differs = np.flatnonzero((codes != codes[0]).any(axis=0))
    columns = tuple(
        ComparedStrategy(
            name=s.name,
            gains=gains(chosen.outcome, s.outcome),
            changes=difference(chosen.map, s.map),
            precisions={
                precision: int((s.map.codes[differs] == code).sum())
                for code, precision in enumerate(s.map.precisions)
            },
            size_bytes=int(s.outcome.layer_bytes[differs].sum()),
            latency_ms=float(s.outcome.layer_ms[differs].sum()),
        )
        for s in strategies
    )
    points = {cost: _points(strategies, cost) for cost in COSTS}
    return Comparison(
        reference=reference,
        hardware=chosen.map.policy.hardware,
        columns=columns,
        layers=tuple(_differing(strategies, int(i)) for i in differs),
        dominances=tuple(
            Dominance(loser.name, winner.name, cost)
            for cost, at in points.items()
            for i, loser in enumerate(strategies)
            for j, winner in enumerate(strategies)
            if dominates(at[j], at[i])
        ),
        fronts={
            cost: tuple(strategies[i].name for i in pareto_front(at)) for cost, at in points.items()
        },
        equal=_equal(strategies, codes),
    )


def _checked(strategies: Sequence[Strategy], reference: str) -> Strategy:
    by_name = {s.name: s for s in strategies}
    if len(by_name) != len(strategies):
        raise PolicyError("Two strategies have the same name.", "Give each its own name.")
    if reference not in by_name:
        raise PolicyError(
            f"No strategy is called {reference!r}.", f"Names: {', '.join(by_name) or 'none'}."
        )
    chosen = by_name[reference]
    for other in strategies:
        if (other.map.layers.names, other.map.precisions) != (
            chosen.map.layers.names,
            chosen.map.precisions,
        ):
            raise MapError(
                f"{other.name} and {reference} are maps of different models.",
                "Compare maps of one analysis.",
            )
        if other.map.policy.hardware != chosen.map.policy.hardware:
            raise PolicyError(
                f"{other.name} is priced on {other.map.policy.hardware}, {reference} on "
                f"{chosen.map.policy.hardware}.",
                "Compare on one device.",
            )
    return chosen


def _differing(strategies: Sequence[Strategy], i: int) -> DifferingLayer:
    layer = strategies[0].map.layers.layers[i]
    return DifferingLayer(
        index=i,
        layer=layer.name,
        role=layer.role,
        precisions=tuple(s.map.assigned[i] for s in strategies),
        size_bytes=tuple(int(s.outcome.layer_bytes[i]) for s in strategies),
        latency_ms=tuple(float(s.outcome.layer_ms[i]) for s in strategies),
    )


def _points(strategies: Sequence[Strategy], cost: Cost) -> list[Point]:
    """(place of the loss, cost) of each strategy, less is better in both.

    The loss is the projected accuracy drop, and KL where drops tie; a model without labels has KL
    alone. A gain counts as no loss: rounding improves a model by chance alone, and a reference must not
    be called beaten for that. Values lose some of their metric, and the relative squared change
    takes the place of KL. Losses become places because a tie has to compare as a pair.
    """
    totals = [s.outcome.comparable for s in strategies]
    figures = loss_figures(totals[0]) if totals else CLASSES
    labelled = any(t[figures.loss].value is not None for t in totals)
    losses: list[tuple[float, float] | None] = []
    for t in totals:
        drop, moved = t[figures.loss].value if labelled else 0.0, t[figures.divergence].value
        losses.append(None if drop is None or moved is None else (max(drop, 0.0), moved))
    places = {
        loss: place for place, loss in enumerate(sorted({x for x in losses if x is not None}))
    }
    return [
        (None if loss is None else float(places[loss]), t[TOTAL_OF[cost]].value)
        for loss, t in zip(losses, totals, strict=True)
    ]


def _equal(strategies: Sequence[Strategy], codes: NDArray[np.int8]) -> tuple[tuple[str, ...], ...]:
    groups: dict[bytes, list[str]] = {}
    for s, row in zip(strategies, codes, strict=True):
        groups.setdefault(row.tobytes(), []).append(s.name)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1)
