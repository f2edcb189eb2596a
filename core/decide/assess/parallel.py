"""Strategies on parallel axes, each turned so that up is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.decide.assess.compare import Strategy
from core.decide.assess.loss import CLASSES, loss_figures
from core.quantity import Quantity

COSTS = ("size_bytes", "latency_ms")
"""Totals that are axes beside those of the loss; of each, less is better."""
NARROW_LAYERS = "narrow_layers"
"""Axis of the number of layers in the narrowest precision, of which more is better."""
MIDDLE = 0.5


@dataclass(frozen=True, slots=True)
class Axis:
    """One figure of several strategies.

    `figures` are in the order of the strategies. `places` are where they lie from the worst (0) to
    the best (1) of them, all in the middle where they are equal; None where unknown.
    """

    name: str
    unit: str
    figures: tuple[Quantity, ...]
    places: tuple[float | None, ...]
    worst: float
    best: float

    @property
    def amounts(self) -> tuple[float | None, ...]:
        """The values, in the same order."""
        return tuple(figure.value for figure in self.figures)


def axes(strategies: Sequence[Strategy], narrowest: str) -> tuple[Axis, ...]:
    """The axes on which at least one of `strategies` has a figure: totals, then the layers in
    the precision `narrowest`.
    """
    judging = loss_figures(strategies[0].outcome.totals) if strategies else CLASSES
    names = (*COSTS, *(name for name in judging.every if name != judging.judged))
    figures = {name: [s.outcome.comparable[name] for s in strategies] for name in names}
    figures[NARROW_LAYERS] = [
        Quantity(s.map.count(narrowest), "layers", "exact") for s in strategies
    ]
    found = (_axis(name, quantities) for name, quantities in figures.items() if quantities)
    return tuple(axis for axis in found if axis is not None)


def _axis(name: str, quantities: Sequence[Quantity]) -> Axis | None:
    amounts = tuple(quantity.value for quantity in quantities)
    known = [value for value in amounts if value is not None]
    if not known:
        return None
    worst, best = max(known), min(known)
    if name == NARROW_LAYERS:
        worst, best = best, worst
    span = best - worst
    return Axis(
        name=name,
        unit=quantities[0].unit,
        figures=tuple(quantities),
        places=tuple(
            None if value is None else (value - worst) / span if span else MIDDLE
            for value in amounts
        ),
        worst=worst,
        best=best,
    )
