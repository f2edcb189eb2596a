"""Prediction flips, made continuous: the share of its margin that a prediction loses.

A count of flips over a few hundred samples ties most layers at 0. So each prediction counts by how
much of the distance to its runner-up the change eats up: 0 where it grows, 1 where it is gone and
the prediction flips. The mean over predictions is no less than the share that flips, and grows
with the error.

Source: the margin between the two largest logits bounds the perturbation that a prediction
survives, as in Sakr, Kim and Shanbhag 2017, "Analytical guarantees on numerical precision of deep
neural networks", ICML; its use as a continuous count of flips is this project's.
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
from core.evidence.scorers.logits import by_step, named

HARMLESS, RUINOUS = 1e-5, 1e-1


def share_to_score(share: Doubles) -> Doubles:
    """1e-5 (0) to 0.1 (1) of the margin, linear in the logarithm."""
    return decades_to_score(share, HARMLESS, RUINOUS)


def margins(logits: NDArray[np.floating], top: NDArray[np.int64]) -> Doubles:
    """How far logit `top` [N, S] lies above the largest of the others: [..., N, S, K] -> [..., N, S]."""
    place = np.arange(logits.shape[-1]) == top[..., None]
    others = np.where(place, -np.inf, logits)
    own = np.where(place, logits, -np.inf).max(axis=-1)
    margin: Doubles = own - others.max(axis=-1)
    return margin


def per_sample(evidence: Evidence, precision: str) -> PerSample | None:
    """Share of the margin lost by each sample's predictions, the mean over its steps."""
    at = evidence.position(precision)
    steps = evidence.outputs.positions
    if at is None or evidence.outputs.kind == "values" or evidence.baseline.shape[1] <= steps:
        return None  # values have no prediction, and a single class has no margin
    logits = named(by_step(evidence.baseline, steps), evidence.outputs).astype(np.float64)
    top = logits.argmax(axis=-1)
    before = margins(logits, top)

    def lost(change: NDArray[np.float32]) -> Doubles:
        loss = before - margins(logits + named(by_step(change, steps), evidence.outputs), top)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(loss > 0, np.minimum(loss / before, 1.0), 0.0)
        found: Doubles = share.mean(axis=-1)
        return found

    every = np.ones(evidence.samples)
    return PerSample(for_layers(evidence, at, lost), every, share_to_score, evidence.allowed[at])


SCORER = Scorer(
    name="flips",
    title="Flips",
    kind="measured",
    description="Share of its margin over the runner-up that a prediction loses when this layer "
    "alone is quantized (1 = it flips), mean from 1e-5 (0) to 0.1 (1), on the selection split.",
    needs="selection split and outputs that are classes",
    source="Margins of predictions, as in Sakr, Kim and Shanbhag 2017 (ICML)",
    score=from_samples(per_sample),
    per_sample=per_sample,
)
