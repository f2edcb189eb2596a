"""Whether more samples would choose other layers: a bootstrap over those that are measured.

Layers are ranked again by samples drawn with replacement. What the cheapest of them then cost by all
samples, beyond the cheapest by all samples, is the regret of stopping here (Efron 1979,
doi:10.1214/aos/1176344552).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.evidence.evidence import Evidence
from core.evidence.scorers import kl

DRAWS = 200
SEED = 20_221
SHARES = (0.5, 0.7, 0.9)
"""Of the layers, narrowed at once."""
MOST_REGRET = 0.02
"""Of what narrowing every layer costs, in 95 % of the draws: less than ranges of projections say."""


def settled(evidence: Evidence) -> bool:
    """Whether the layers that cost least are the same for other samples, in every precision, but for
    what does not matter. False where a layer is not measured yet.
    """
    if evidence.measured is not None or evidence.samples < 2:
        return False
    return all(regret(evidence, name) <= MOST_REGRET for name in evidence.precisions)


def regret(evidence: Evidence, precision: str) -> float:
    """The 95 % quantile, over draws of samples, of what the layers chosen by a draw cost beyond the
    cheapest ones, over what all layers cost, the largest over `SHARES`; costs are added.
    """
    found = kl.per_sample(evidence, precision)
    assert found is not None
    amounts = found.amounts[found.allowed]
    amounts = amounts[amounts.sum(axis=1) > 0]
    layers, samples = amounts.shape
    if not layers:
        return 0.0
    chances = np.full(samples, 1 / samples)
    counts = np.random.default_rng(SEED).multinomial(samples, chances, size=DRAWS)
    costs = amounts.sum(axis=1)
    ranked = np.argsort(counts @ amounts.T, axis=1)
    best = np.sort(costs)
    return max(_beyond(costs[ranked[:, :k]], best[:k]) / float(best.sum()) for k in _sizes(layers))


def _sizes(layers: int) -> list[int]:
    return [max(round(share * layers), 1) for share in SHARES]


def _beyond(chosen: NDArray[np.float64], best: NDArray[np.float64]) -> float:
    return float(np.quantile(chosen.sum(axis=1) - best.sum(), 0.95))
