"""Which totals a model is judged by: classes lose accuracy, values lose some of a metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from core.quantity import Quantity


@dataclass(frozen=True, slots=True)
class LossFigures:
    """Names of totals. `judged` is the figure itself, `loss` what a map loses of it (positive =
    worse), `divergence` how far the outputs move, which needs no labels; `every` are all of
    them with what else is known of the outputs, in the order in which they are read.
    """

    judged: str
    loss: str
    divergence: str
    every: tuple[str, ...]


CLASSES = LossFigures(
    "accuracy", "accuracy_drop_pts", "kl", ("accuracy", "accuracy_drop_pts", "kl", "flips_pct")
)
VALUES = LossFigures(
    "metric", "metric_loss_pct", "relative_mse", ("metric", "metric_loss_pct", "relative_mse")
)


def loss_figures(totals: Mapping[str, Quantity]) -> LossFigures:
    """The figures that `totals` are to be read by."""
    return VALUES if VALUES.loss in totals else CLASSES


def read_first(reference: Mapping[str, Quantity]) -> tuple[str, ...]:
    """Totals that say what a map loses, in the order in which they are read: the known ones first.

    The first is the loss, or where no labels tell it, how far the outputs move. `reference` are
    totals of the reference map, of which all is known that evidence can tell.
    """
    figures = loss_figures(reference)
    names = [
        figures.loss,
        *(name for name in figures.every if name not in (figures.judged, figures.loss)),
    ]
    return tuple(sorted(names, key=lambda name: reference[name].value is None))


def loss_at_most(totals: Mapping[str, Quantity]) -> float | None:
    """The upper end of the loss, in points of accuracy or percent of the metric.

    Without labels a classifier cannot lose more than the predictions that change. None where
    nothing bounds the loss.
    """
    high = totals[loss_figures(totals).loss].high
    return high if high is not None else totals["flips_pct"].high
