"""Which layers cost most alone, by what was measured of them so far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.evidence.evidence import Evidence
from core.evidence.scorers import kl
from core.layers import LayerTable


@dataclass(frozen=True, slots=True)
class Ranking:
    """Layers by their divergence alone in `precision`, the largest first: (name, nats, or share of the
    variance where outputs are values; infinite where outputs are not finite).
    """

    precision: str
    worst: tuple[tuple[str, float], ...]
    unit: str


def ranking(layers: LayerTable, evidence: Evidence, most: int = 5) -> Ranking | None:
    """The `most` layers that cost most in the precision in which all of them cost most together; None
    where none changes anything.
    """
    found: dict[str, np.ndarray] = {}
    for name in evidence.precisions:
        samples = kl.per_sample(evidence, name)
        assert samples is not None
        found[name] = np.where(samples.allowed, samples.figures, np.inf)
    if not found:
        return None
    # A precision that overflows somewhere says so on every page; layers are ranked by what they cost.
    total = {n: float(costs[np.isfinite(costs)].sum()) for n, costs in found.items()}
    worst_in = max(total, key=lambda n: total[n])
    costs = found[worst_in]
    places = np.argsort(-costs, kind="stable")[:most]
    worst = tuple((layers.names[i], float(costs[i])) for i in places if costs[i] > 0)
    unit = "nats" if evidence.outputs.kind == "logits" else "of variance"
    return Ranking(worst_in, worst, unit) if worst else None
