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
MOST_REGRET = 0.1
"""Of what narrowing every layer costs, in 95 % of the draws."""
NEGLIGIBLE = 1e-5
"""Nats, or share of the variance: a regret that no answer shows."""


def settled(evidence: Evidence) -> bool:
    """Whether the layers that cost least are the same for other samples, in every precision, but for
    what does not matter. False where a layer is not measured yet.
    """
    if evidence.measured is not None or evidence.samples < 2:
        return False
    for name in evidence.precisions:
        beyond, of_all = regret(evidence, name)
        if beyond > max(MOST_REGRET * of_all, NEGLIGIBLE):
            return False
    return True


def regret(evidence: Evidence, precision: str) -> tuple[float, float]:
    """What the layers chosen by a draw of samples cost beyond the cheapest ones, as its 95 % quantile
    over draws and the largest over `SHARES`; and what all layers cost. Costs are divergences of
    layers alone, added (nats, or share of the variance).
    """
    found = kl.per_sample(evidence, precision)
    assert found is not None
    amounts = found.amounts[found.allowed] / found.bases.sum()
    amounts = amounts[amounts.sum(axis=1) > 0]
    layers, samples = amounts.shape
    if not layers:
        return 0.0, 0.0
    chances = np.full(samples, 1 / samples)
    counts = np.random.default_rng(SEED).multinomial(samples, chances, size=DRAWS)
    costs = amounts.sum(axis=1)
    ranked = np.argsort(counts @ amounts.T, axis=1)
    best = np.sort(costs)
    worst = max(_beyond(costs[ranked[:, :k]], best[:k]) for k in _sizes(layers))
    return worst, float(best.sum())


def _sizes(layers: int) -> list[int]:
    return [max(round(share * layers), 1) for share in SHARES]


def _beyond(chosen: NDArray[np.float64], best: NDArray[np.float64]) -> float:
    return float(np.quantile(chosen.sum(axis=1) - best.sum(), 0.95))
