"""How layers disturb a model together: the matrix Q over (layer, precision) pairs.

Q = ½ E[Δyₐᵀ F Δy_b] with F = diag(p) - p pᵀ for classes; E[Δyₐᵀ Δy_b] over the variance of the
outputs for values. sᵀQs is the second-order cost of a map s, in the unit of the projected
divergence. CLADO (Deng et al. 2023, arXiv:2307.05657) measures such a matrix with a run for every
pair of layers; stored perturbations give it by one product of matrices. A loss with labels has
the linear term E[gᵀΔy] besides, g the gradient of the loss by the outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.estimate.loss_function import LossFunction, Target, loss_function
from core.estimate.overlaps import NOTHING_SHARED, Overlaps
from core.evidence.evidence import Evidence

Doubles = NDArray[np.float64]

MAX_PAIRS = 1_600
"""Beyond this many (layer, precision) pairs the matrix is not kept: its diagonal is."""


@dataclass(frozen=True, eq=False)
class Interactions:
    """Q [P * L, P * L] and the linear term [P * L], rows in the order precision, then layer.

    `matrix` is None for models with more pairs than `MAX_PAIRS`; `own` [P * L] is its diagonal.
    """

    matrix: Doubles | None
    linear: Doubles
    own: Doubles
    layers: int

    def cost(self, codes: NDArray[np.int8]) -> float:
        """sᵀQs plus the linear term for the map `codes` (L,), 0 = the reference."""
        layers = np.flatnonzero(codes > 0)
        rows = (codes[layers].astype(np.int64) - 1) * self.layers + layers
        linear = float(self.linear[rows].sum())
        if self.matrix is None:
            return linear + float(self.own[rows].sum())
        return linear + float(self.matrix[np.ix_(rows, rows)].sum())


def interactions(evidence: Evidence, target: Target = "divergence") -> Interactions:
    """Q of `evidence`; raises `PolicyError` where `target` needs labels and there are none."""
    loss = loss_function(evidence, target)[0]
    return interactions_of(loss, evidence.perturbations.shape[1])


def interactions_of(
    loss: LossFunction, layers: int, shared: Overlaps = NOTHING_SHARED
) -> Interactions:
    """Q of what a search weighs, with what two layers share once where it is `shared`."""
    whitened = loss.whitened()
    own = np.einsum("rk,rk->r", whitened, whitened, dtype=np.float64)
    matrix = None
    if len(whitened) <= MAX_PAIRS:
        matrix = shared.between((whitened @ whitened.T).astype(np.float64))
    return Interactions(matrix, loss.linear(), own, layers)
