"""What was measured of a model, as arrays; everything else is derived from them.

A *perturbation* is the change of the model's outputs when one layer alone leaves the reference
precision, on every selection sample.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from core.evidence.layer_alone import LocalStatistics
from core.evidence.options import FIRST_LOOK
from core.evidence.shared_rounding import Pairs, no_pairs
from core.files import Count
from core.numerics.calibrate.calibration import Calibration

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the K outputs of a sample are.

    *logits*: `positions` steps with K / `positions` classes each, the classes of a step side by
    side. *values*: K numbers. `total` counts the outputs before some were left out to save
    memory (0: all were kept). `classes` counts those of a step where only some of them were kept
    one by one (0: all were): the last of the K / `positions` is then all others together.
    """

    kind: Literal["logits", "values"] = "logits"
    positions: Count = 1
    total: Count = 0
    classes: Count = 0


@dataclass(frozen=True, eq=False)
class MetricRuns:
    """A custom metric of every run on the selection split, in the metric's own unit.

    Axis R: the whole split first, then resamples of it with replacement, the same ones for
    every run. The metric is a person's function, so it was called while the model was measured.
    """

    baseline: NDArray[np.float64]  # [R]
    alone: NDArray[np.float64]  # [P, L, R]
    whole: NDArray[np.float64]  # [P, R]
    probes: NDArray[np.float64]  # [M, R]


def spread_by_sample(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared deviation of each sample of `values` [N, K] from the mean over samples, shape [N].

    Where samples do not differ, the square of each: something has to be held against.
    """
    size: NDArray[np.float64] = np.square(values).sum(axis=1)
    deviation: NDArray[np.float64] = np.square(values - values.mean(axis=0)).sum(axis=1)
    return deviation if deviation.sum() > 1e-12 * size.sum() else size


def mean_known(values: NDArray[Any]) -> NDArray[np.float64]:
    """Mean over samples of `values` [N, K] without those that are NaN, shape [K]; 0 where all are."""
    known = ~np.isnan(values)
    sums = np.where(known, values, 0).sum(axis=0, dtype=np.float64)
    return np.asarray(sums / np.maximum(known.sum(axis=0), 1))


@dataclass(frozen=True, eq=False)
class Evidence:
    """Measurements of one model under one scheme on one selection split.

    Axes: P simulated precisions (the reference is not among them), L layers, N samples, K
    outputs, M probes (whole maps that were simulated to learn how far a projection errs).
    Perturbations of a pair whose output is not finite are stored as zeros and `allowed` is
    False there: such a pair is forbidden, never summed.

    While a measurement goes on, `measured` [P, L] says which pairs are known: the others are
    zeros that stand for nothing, `whole` is unknown (P = 0) and there are no probes. It is None
    where all is known. `of_samples` is how many the split has of which the N were drawn, 0 where
    they are all.
    """

    precisions: tuple[str, ...]
    scheme: str
    baseline: Floats  # [N, K] outputs in the reference precision
    targets: NDArray[Any] | None  # int64 [N] class of each sample, [N, positions] of each step
    # (below 0: not counted), or float32 [N, K] for values,
    # NaN where unknown
    perturbations: Floats  # [P, L, N, K]
    whole: Floats  # [P, N, K] change when every layer is in that precision; [0, N, K] if unknown
    probe_codes: NDArray[np.int8]  # [M, L] index into `precisions`; -1 = reference
    probes: Floats  # [M, N, K] change under each probe
    weight_sqnr_db: NDArray[np.float64]  # [P, L]; inf where the precision rounds no weight
    allowed: NDArray[np.bool_]  # [P, L]
    outputs: Outputs = Outputs()
    metrics: MetricRuns | None = None
    local: LocalStatistics | None = None
    measured: NDArray[np.bool_] | None = None  # [P, L]; None: every pair, and whole maps
    shared: Pairs = field(default_factory=no_pairs)  # [S, 2] layers: the first rounds its output,
    # and the second the same tensor
    entries: NDArray[np.int32] | None = None  # [N, positions, K / positions - 1] classes that are
    # kept one by one, rising; None where all are. `targets` then name places among them.
    of_samples: Count = 0

    @property
    def samples(self) -> int:
        """Number of selection samples N."""
        return int(self.baseline.shape[0])

    def position(self, precision: str) -> int | None:
        """Index of `precision` among the simulated ones; None if it was not simulated."""
        return self.precisions.index(precision) if precision in self.precisions else None

    @cached_property
    def spread(self) -> float:
        """Sum of squared deviations of the reference outputs from their mean over samples.

        Where outputs do not differ between samples, the sum of their squares: what a change is
        held against for outputs that are values.
        """
        return float(self.spread_by_sample.sum())

    @cached_property
    def spread_by_sample(self) -> NDArray[np.float64]:
        """What each sample contributes to `spread`, shape [N]."""
        return spread_by_sample(self.baseline.astype(np.float64))

    @cached_property
    def energy(self) -> NDArray[np.float64]:
        """Sum of squared perturbations over samples and outputs, shape [P, L]."""
        precisions, layers, samples, outputs = self.perturbations.shape
        flat = self.perturbations.reshape(precisions, layers, samples * outputs)
        energy: NDArray[np.float64] = np.einsum("pln,pln->pl", flat, flat, dtype=np.float64)
        return energy


@dataclass(frozen=True, slots=True)
class Identity:
    """Which model and data an analysis or a map belongs to."""

    name: str
    weights_sha256: str
    data_sha256: str


@dataclass(frozen=True, slots=True)
class SplitSizes:
    """Number of samples in each split."""

    calibration: Count
    selection: Count
    holdout: Count


@dataclass(frozen=True, slots=True)
class Partial:
    """How far a measurement was: layers that compute and are measured in every precision, on
    how many of the samples.
    """

    layers: Count
    of_layers: Count
    samples: Count
    of_samples: Count

    def in_words(self) -> str:
        """As "partial, 23 of 57 layers"."""
        if self.layers < self.of_layers:
            return f"partial, {self.layers:,} of {self.of_layers:,} layers"
        if self.samples < self.of_samples:
            what = "partial" if self.samples > FIRST_LOOK else "first look"
            return f"{what}, {self.samples:,} of {self.of_samples:,} samples"
        return "partial, causes not examined yet"


@dataclass(frozen=True, eq=False)
class Measured:
    """Evidence together with the ranges it was simulated with.

    `notes` say how it was measured, where that is not the usual way. `key` is what its runs are kept
    under in the cache ("" = they are not), `partial` how far it went, None for all the way.
    """

    evidence: Evidence
    ranges: tuple[Calibration, ...]
    seconds: float
    notes: tuple[str, ...] = ()
    key: str = ""
    partial: Partial | None = None
