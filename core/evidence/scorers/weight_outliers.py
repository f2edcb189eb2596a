"""Weight outliers: kurtosis of the stored weights, per output channel.

A grid spreads its levels evenly, which suits weights that are spread evenly: their kurtosis is
1.8. A few far weights stretch the grid and raise it (3 for a normal distribution, 6 for a Laplace
one), and no larger number of samples or finer scale per channel mends that.

Source: Shkolnik et al. 2020, "Robust quantization: one model to rule them all", arXiv:2002.07686,
which trains towards the kurtosis of the uniform distribution.
"""

from __future__ import annotations

import numpy as np

from core.evidence.evidence import Evidence
from core.evidence.scorers.contract import Doubles, Scorer
from core.layers import LayerTable

UNIFORM = 1.8


def kurtosis_to_score(kurtosis: Doubles) -> Doubles:
    """1 - 1.8 / kurtosis, at least 0: uniform 0, normal 0.4, Laplace 0.7."""
    score: Doubles = np.maximum(1 - UNIFORM / np.maximum(kurtosis, UNIFORM), 0.0)
    return score


def _score(layers: LayerTable, evidence: Evidence | None, precision: str) -> Doubles | None:
    local = None if evidence is None else evidence.local
    found = None if local is None else local.weight_kurtosis
    return None if found is None else kurtosis_to_score(found)


SCORER = Scorer(
    name="weight_outliers",
    title="Weight outliers",
    kind="weights",
    description="Kurtosis of the weights within their output channel: uniform 0, normal 0.4, "
    "Laplace 0.7. Needs no data; 0 for a layer without weights to round.",
    needs="weights, and an analysis with local statistics",
    source="Kurtosis against that of the uniform distribution, Shkolnik et al. 2020, "
    "arXiv:2002.07686",
    score=_score,
)
