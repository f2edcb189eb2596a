"""How well a score ranks the layers, judged by what was measured.

Rules of thumb are the starting point and measurement is the judge: Spearman's rank correlation
of each score with the measured output error, and the layers on which they disagree most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TRUTH = "output_error"
"""The scorer that is measured at the model's output."""

FEWEST_LAYERS = 3


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A layer and its place (1 = most sensitive) by a score and by measurement. Layers that tie
    share the mean of their places.
    """

    layer: int
    place_by_score: float
    place_by_truth: float

    @property
    def gap(self) -> float:
        """Places between the two; positive where the score is too careful."""
        return self.place_by_truth - self.place_by_score


@dataclass(frozen=True, slots=True)
class Agreement:
    """Rank agreement of one scorer with the measurement over `layers` layers.

    `spearman` lies in [-1, 1]; None where it is undefined (fewer than three layers, or one of
    the two gives every layer the same score). `worst` lists the largest gaps first.
    """

    scorer: str
    spearman: float | None
    layers: int
    worst: tuple[Disagreement, ...]


def mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Place of each value, 1 = largest; equal values share the mean of their places."""
    _, inverse, counts = np.unique(-values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return ranks


def agreements(
    scores: Mapping[str, NDArray[np.float64]], computes: NDArray[np.bool_], worst: int = 8
) -> tuple[Agreement, ...]:
    """Agreement of every other scorer in `scores` with the measured output error.

    `computes`, shape (L,), says which layers do anything; the others are left out. Empty where
    nothing was measured.
    """
    truth = scores.get(TRUTH)
    if truth is None:
        return ()
    layers = np.flatnonzero(computes)
    places = mean_ranks(truth[layers])
    found = []
    for name, score in scores.items():
        if name == TRUTH:
            continue
        by_score = mean_ranks(score[layers])
        gaps = np.abs(by_score - places)
        order = np.argsort(-gaps, kind="stable")[:worst]
        found.append(
            Agreement(
                name,
                _correlation(by_score, places),
                len(layers),
                tuple(
                    Disagreement(int(layers[i]), float(by_score[i]), float(places[i]))
                    for i in order
                    if gaps[i] > 0
                ),
            )
        )
    return tuple(found)


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    if len(a) < FEWEST_LAYERS or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])
