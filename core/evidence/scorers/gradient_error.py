"""Gradient x actual error: the divergence that a layer's own rounding error should cause.

The error dy of the layer's own output, measured on calibration samples with everything before it
in float, is multiplied by the gradient g of a random combination of the outputs whose covariance
is their Fisher information; (g . dy)^2 / 2 is the expected KL to second order (for values, the
squared change). A few backward passes serve all layers, and no targets are needed.

Source: the Gauss-Newton form of the error at a layer's output is that of Li et al. 2021, "BRECQ",
arXiv:2102.05426, without its diagonal approximation.
"""

from __future__ import annotations

from core.evidence.evidence import Evidence
from core.evidence.scorers.contract import Doubles, Scorer
from core.evidence.scorers.kl import divergence_to_score
from core.layers import LayerTable


def _score(layers: LayerTable, evidence: Evidence | None, precision: str) -> Doubles | None:
    if evidence is None or evidence.local is None or evidence.local.gradient_error is None:
        return None
    at = evidence.position(precision)
    return None if at is None else divergence_to_score(evidence.local.gradient_error[at])


SCORER = Scorer(
    name="gradient_error",
    title="Gradient × error",
    kind="projected",
    description="Divergence that the rounding error of this layer's own output should cause, from "
    "one pass of gradients over calibration samples: 1e-8 (0) to 0.1 (1). Sees differentiable "
    "paths only.",
    needs="calibration split, and an analysis with local statistics",
    source="Gauss-Newton form at the layer's output, as in Li et al. 2021, arXiv:2102.05426",
    score=_score,
)
