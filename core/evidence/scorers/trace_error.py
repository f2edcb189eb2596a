"""Hessian trace x weight error: mean curvature of a layer's weights times their rounding error.

Half the mean diagonal of the Gauss-Newton matrix over the weights, estimated by Hutchinson's
method with random combinations of the outputs, times the squared rounding error of the weights.
Only weights count: an activation's rounding is not seen.

Source: Dong et al. 2020, "HAWQ-V2: Hessian aware trace-weighted quantization of neural networks",
arXiv:1911.03852.
"""

from __future__ import annotations

from core.evidence.evidence import Evidence
from core.evidence.scorers.contract import Doubles, Scorer
from core.evidence.scorers.kl import divergence_to_score
from core.layers import LayerTable


def _score(layers: LayerTable, evidence: Evidence | None, precision: str) -> Doubles | None:
    if evidence is None or evidence.local is None or evidence.local.trace_error is None:
        return None
    at = evidence.position(precision)
    return None if at is None else divergence_to_score(evidence.local.trace_error[at])


SCORER = Scorer(
    name="trace_error",
    title="Trace × weight error",
    kind="projected",
    description="Mean curvature of this layer's weights times their squared rounding error: 1e-8 "
    "(0) to 0.1 (1). 0 for a layer without weights to round; rounded activations do not count.",
    needs="calibration split, and an analysis with local statistics",
    source="HAWQ-V2, Dong et al. 2020, arXiv:1911.03852",
    score=_score,
)
