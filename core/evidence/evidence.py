"""What was measured of a model, as arrays; everything else is derived from them.

A *perturbation* is the change of the model's outputs when one layer alone leaves the reference
precision, on every selection sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Measurements of one model under one scheme on one selection split.

    Axes: P simulated precisions (the reference is not among them), L layers, N samples, K
    outputs, M probes (whole maps that were simulated to learn how far a projection errs).
    Perturbations of a pair whose output is not finite are stored as zeros and `allowed` is
    False there: such a pair is forbidden, never summed.
    """

    precisions: tuple[str, ...]
    scheme: str
    baseline: Floats  # [N, K] outputs in the reference precision
    targets: NDArray[np.int64] | None  # [N] class of each sample
    perturbations: Floats  # [P, L, N, K]
    whole: Floats  # [P, N, K] change when every layer is in that precision
    probe_codes: NDArray[np.int8]  # [M, L] index into `precisions`; -1 = reference
    probes: Floats  # [M, N, K] change under each probe
    weight_sqnr_db: NDArray[np.float64]  # [P, L]; inf where the precision rounds no weight
    allowed: NDArray[np.bool_]  # [P, L]

    @property
    def samples(self) -> int:
        """Number of selection samples N."""
        return int(self.baseline.shape[0])

    def position(self, precision: str) -> int | None:
        """Index of `precision` among the simulated ones; None if it was not simulated."""
        return self.precisions.index(precision) if precision in self.precisions else None

    @cached_property
    def energy(self) -> NDArray[np.float64]:
        """Sum of squared perturbations over samples and outputs, shape [P, L]."""
        precisions, layers, samples, outputs = self.perturbations.shape
        flat = self.perturbations.reshape(precisions, layers, samples * outputs)
        energy: NDArray[np.float64] = np.einsum("pln,pln->pl", flat, flat, dtype=np.float64)
        return energy


@dataclass(frozen=True, slots=True)
class Calibration:
    """The observed range of one activation: operand `operand` (-1 = output) of operation
    `operation` within `layer`'s forward pass (-1 = the layer's own output).
    """

    layer: str
    operation: int
    operand: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Identity:
    """Which model and data an analysis or a map belongs to."""

    name: str
    weights_sha256: str
    data_sha256: str


@dataclass(frozen=True, slots=True)
class SplitSizes:
    """Number of samples in each split."""

    calibration: int
    selection: int
    holdout: int


@dataclass(frozen=True, eq=False)
class Measured:
    """Evidence together with the ranges it was simulated with.

    `notes` say how it was measured, where that is not the usual way.
    """

    evidence: Evidence
    ranges: tuple[Calibration, ...]
    seconds: float
    notes: tuple[str, ...] = ()
