"""Divergence of the outputs with one layer alone quantized: KL of classes, relative MSE of values.

Source: KL of the reference's and the quantized output distributions ranks layers in Cai et al.
2020, "ZeroQ: a novel zero shot quantization framework", arXiv:2001.00281.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.evidence.evidence import Evidence
from core.evidence.scorers.contract import (
    Doubles,
    PerSample,
    Scorer,
    decades_to_score,
    for_layers,
    from_samples,
)
from core.evidence.scorers.logits import by_step, log_softmax

HARMLESS = 1e-8
"""Nats, or share of the variance: what rounding in float32 does to most models."""
RUINOUS = 1e-1


def divergence_to_score(divergence: Doubles) -> Doubles:
    """1e-8 (0) to 1e-1 (1) nats, or relative MSE, linear in the logarithm."""
    return decades_to_score(divergence, HARMLESS, RUINOUS)


def per_sample(evidence: Evidence, precision: str) -> PerSample | None:
    """KL in nats of each sample, the mean over its steps; or its squared change over the spread."""
    at = evidence.position(precision)
    if at is None:
        return None
    allowed = evidence.allowed[at]
    if evidence.outputs.kind == "values":
        squares = for_layers(evidence, at, lambda x: np.square(x, dtype=np.float64).sum(axis=-1))
        return PerSample(squares, evidence.spread_by_sample, divergence_to_score, allowed)
    steps = evidence.outputs.positions
    logits = by_step(evidence.baseline, steps).astype(np.float64)
    reference = log_softmax(logits)
    chances = np.exp(reference)

    def kl(change: NDArray[np.float32]) -> Doubles:
        moved = log_softmax(logits + by_step(change, steps))
        found: Doubles = (chances * (reference - moved)).sum(axis=-1).mean(axis=-1)
        return np.maximum(found, 0.0)

    every = np.ones(evidence.samples)
    return PerSample(for_layers(evidence, at, kl), every, divergence_to_score, allowed)


SCORER = Scorer(
    name="kl",
    title="Divergence",
    kind="measured",
    description="KL divergence of the outputs when this layer alone is quantized (relative mean "
    "squared error where they are values), from 1e-8 (0) to 0.1 (1), on the selection split.",
    needs="selection split",
    source="KL of layer-alone outputs, as in Cai et al. 2020, arXiv:2001.00281",
    score=from_samples(per_sample),
    per_sample=per_sample,
)
