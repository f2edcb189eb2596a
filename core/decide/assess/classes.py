"""What a map does to each class, and to which samples: for models that classify."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.decide.study import Study
from core.estimate.projection import POINTS, Projector
from core.estimate.trials import Z90
from core.evidence.scorers.logits import named
from core.quantity import Quantity


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """One class on the selection split: `answers` of it, its accuracy in the reference (measured)
    and under the map (projected, with a 90 % range), in percent; `drop_pts` in points.
    """

    name: str
    answers: int
    reference: Quantity
    accuracy: Quantity
    drop_pts: Quantity


@dataclass(frozen=True, slots=True)
class Flip:
    """An answer that changes: its sample and step, its class ("" = unknown), and the answers.

    `effect` is *lost*, *won* or *neither*; *unknown* without labels.
    """

    sample: int
    step: int
    label: str
    before: str
    after: str
    effect: str


@dataclass(frozen=True, slots=True)
class ByClass:
    """Figures by class, none without labels, and every projected flip in the order of samples."""

    classes: tuple[ClassFigures, ...]
    flips: tuple[Flip, ...]


def by_class(study: Study, codes: NDArray[np.int8]) -> ByClass | None:
    """Figures by class of the map `codes`; None where the outputs are no classes, nothing was
    measured, or outputs are not finite.

    Ranges are those of the projection's accuracy drop, applied to the answers of one class: paired
    proportions (Bonett and Price 2012, doi:10.3102/1076998611411915) and the model's own error.
    """
    projector = study.projector
    if not isinstance(projector, Projector) or projector.forbidden(codes):
        return None
    evidence = projector.evidence
    positions = evidence.outputs.positions
    before = evidence.baseline.reshape(evidence.samples * positions, -1)
    after = (evidence.baseline + projector.change(codes)).reshape(before.shape)
    was, now = (named(outputs, evidence.outputs).argmax(axis=1) for outputs in (before, after))
    labels = None if evidence.targets is None else evidence.targets.ravel()
    if evidence.entries is not None:
        own, at = evidence.entries.reshape(len(was), -1), np.arange(len(was))
        was, now = own[at, was], own[at, now]
        labels = labels if labels is None else np.where(labels < 0, labels, own[at, labels])
    names = _names(study, evidence.outputs.classes or before.shape[1])
    counted = np.ones(len(was), np.bool_) if labels is None else labels >= 0
    flips = tuple(
        _flip(int(i), positions, names, labels, was, now)
        for i in np.flatnonzero((was != now) & counted)
    )
    if labels is None:
        return ByClass((), flips)
    nothing_changes = not (codes > 0).any()
    classes = tuple(
        _figures(projector, names[c], labels == c, was == labels, now == labels, was != now,
                 exact=nothing_changes)
        for c in np.unique(labels[labels >= 0]).tolist()
    )  # fmt: skip
    return ByClass(classes, flips)


def _names(study: Study, count: int) -> tuple[str, ...]:
    given = study.analysis.class_names
    return given if len(given) == count else tuple(f"class {c}" for c in range(count))


def _flip(
    i: int, positions: int, names: tuple[str, ...], labels: NDArray[np.int64] | None,
    was: NDArray[np.integer], now: NDArray[np.integer],
) -> Flip:  # fmt: skip
    label = None if labels is None else int(labels[i])
    effect = "unknown"
    if label is not None:
        effect = "lost" if was[i] == label else "won" if now[i] == label else "neither"
    named = "" if label is None else names[label]
    return Flip(i // positions, i % positions, named, names[was[i]], names[now[i]], effect)


def _figures(
    projector: Projector, name: str, own: NDArray[np.bool_], right: NDArray[np.bool_],
    still: NDArray[np.bool_], flipped: NDArray[np.bool_], *, exact: bool,
) -> ClassFigures:  # fmt: skip
    n = int(own.sum())
    lost, won = int((right & ~still)[own].sum()), int((~right & still)[own].sum())
    reference, accuracy = float(right[own].mean()), float(still[own].mean())
    a, b = (lost + 1) / (n + 2), (won + 1) / (n + 2)
    sampling = (a + b - (a - b) ** 2) / (n + 2)
    model = (projector.drop_error_per_flip * np.sqrt(int(flipped[own].sum()) + 1) / n) ** 2
    half = 0.0 if exact else Z90 * float(np.sqrt(sampling + model)) * POINTS
    value, drop = accuracy * POINTS, (lost - won) / n * POINTS
    return ClassFigures(
        name,
        n,
        Quantity(reference * POINTS, "%", "measured"),
        Quantity(value, "%", "projected", max(value - half, 0.0), min(value + half, POINTS)),
        Quantity(drop, "pts", "projected", max(drop - half, -POINTS), min(drop + half, POINTS)),
    )
