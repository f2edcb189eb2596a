"""What a scorer is: one way of looking at how sensitive a layer is.

Each maps to [0, 1] by a fixed rule that depends neither on the other layers nor on the model, so
that an absolute threshold means the same everywhere. Higher = more sensitive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.evidence.evidence import Evidence
from core.layers import LayerTable

Doubles = NDArray[np.float64]
Mapping = Callable[[Doubles], Doubles]
Score = Callable[[LayerTable, Evidence | None, str], Doubles | None]
Kind = Literal["prior", "weights", "projected", "measured"]

SQNR_HARMLESS_DB = 60.0
SQNR_RUINOUS_DB = 10.0
CHUNK_VALUES = 2**22
"""Outputs that are worked on at once, so that memory does not grow with the layers."""


@dataclass(frozen=True, eq=False, slots=True)
class PerSample:
    """What every selection sample contributes to a measured score.

    A layer's figure is `amounts` summed over samples ÷ `bases` summed over samples; `mapping`
    turns figures into scores. Layers outside `allowed` (outputs not finite) score 1.
    """

    amounts: Doubles  # [L, N]
    bases: Doubles  # [N]
    mapping: Mapping
    allowed: NDArray[np.bool_]  # [L]

    def scores(self, counts: Doubles | None = None) -> Doubles:
        """Scores of all samples, shape (L,); with `counts` [R, N], how often each sample is in
        each resample, shape (R, L).
        """
        figures = self.figures
        if counts is not None:
            figures = _ratio(counts @ self.amounts.T, (counts @ self.bases)[:, None])
        result: Doubles = np.where(self.allowed, self.mapping(figures), 1.0)
        return result

    @property
    def figures(self) -> Doubles:
        """The figures of all samples, before they are mapped to scores, shape (L,)."""
        return _ratio(self.amounts.sum(axis=1), self.bases.sum())


def _ratio(amounts: Doubles, bases: Doubles) -> Doubles:
    """`amounts` ÷ `bases`, 0 where nothing was added up."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(amounts > 0, amounts / bases, 0.0)


@dataclass(frozen=True, slots=True)
class Scorer:
    """A named score with its source.

    `score(layers, evidence, precision)` gives shape (L,), or None where what it needs is missing;
    `needs` names that in words. `per_sample` is there for a score that is measured on the
    selection samples, so that it can be resampled.
    """

    name: str
    title: str
    kind: Kind
    description: str
    needs: str
    source: str
    score: Score
    per_sample: Callable[[Evidence, str], PerSample | None] | None = None


def sqnr_to_score(sqnr_db: Doubles) -> Doubles:
    """DB -> [0, 1]: 0 at 60 dB and above, 1 at 10 dB and below, linear between."""
    span = SQNR_HARMLESS_DB - SQNR_RUINOUS_DB
    score: Doubles = np.clip((SQNR_HARMLESS_DB - sqnr_db) / span, 0.0, 1.0)
    return score


def decades_to_score(values: Doubles, harmless: float, ruinous: float) -> Doubles:
    """Values -> [0, 1]: 0 at `harmless` and below, 1 at `ruinous` and above, linear in the
    logarithm between.
    """
    with np.errstate(divide="ignore"):
        decades = np.log10(values / harmless)
    score: Doubles = np.clip(decades / np.log10(ruinous / harmless), 0.0, 1.0)
    return score


def from_samples(per_sample: Callable[[Evidence, str], PerSample | None]) -> Score:
    """The score over all samples of what `per_sample` gives."""

    def score(layers: LayerTable, evidence: Evidence | None, precision: str) -> Doubles | None:
        found = None if evidence is None else per_sample(evidence, precision)
        return None if found is None else found.scores()

    return score


def for_layers(
    evidence: Evidence, at: int, figure: Callable[[NDArray[np.float32]], Doubles]
) -> Doubles:
    """`figure` of the changes [l, N, K] of a few layers at a time gives [l, N]; all as [L, N]."""
    rows = list(_in_chunks(evidence.perturbations[at], figure))
    return np.concatenate(rows) if rows else np.zeros((0, evidence.samples))


def _in_chunks(
    changes: NDArray[np.float32], figure: Callable[[NDArray[np.float32]], Doubles]
) -> Iterator[Doubles]:
    samples = max(1, changes.shape[1] * changes.shape[2])
    step = max(1, CHUNK_VALUES // samples)
    for start in range(0, len(changes), step):
        yield figure(np.asarray(changes[start : start + step]))
