"""Task loss: how much the loss against the targets rises with one layer alone quantized.

Only samples that it harms count: over a split the gains and losses of a small error nearly cancel,
and what is left says more about chance than about the layer. For values, the squared error is
taken relative to the variation of the targets.

Source: the change of the task's loss with one layer quantized ranks layers in Nagel et al. 2021,
"A white paper on neural network quantization", arXiv:2106.08295; that
gains do not count is this project's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.evidence.evidence import Evidence, mean_known, spread_by_sample
from core.evidence.scorers.contract import (
    Doubles,
    PerSample,
    Scorer,
    decades_to_score,
    for_layers,
    from_samples,
)
from core.evidence.scorers.logits import by_step, log_softmax

HARMLESS, RUINOUS = 1e-5, 1e-1


def rise_to_score(rise: Doubles) -> Doubles:
    """1e-5 (0) to 0.1 (1) nats, or share of the targets' variance, linear in the logarithm."""
    return decades_to_score(rise, HARMLESS, RUINOUS)


def per_sample(evidence: Evidence, precision: str) -> PerSample | None:
    """Rise of each sample's loss: cross-entropy summed over its counted steps, or squared error."""
    at, targets = evidence.position(precision), evidence.targets
    if at is None or targets is None:
        return None
    allowed = evidence.allowed[at]
    if evidence.outputs.kind == "values":
        # A target that is unknown counts neither as loss nor as variation.
        known = ~np.isnan(targets)
        wanted = np.where(known, targets, mean_known(targets))
        miss = evidence.baseline - wanted

        def squares(change: NDArray[np.float32]) -> Doubles:
            rise: Doubles = (change * (2 * miss + change) * known).sum(axis=-1)
            return np.maximum(rise, 0.0)

        amounts, bases = for_layers(evidence, at, squares), spread_by_sample(wanted)
        return PerSample(amounts, bases, rise_to_score, allowed)
    steps = evidence.outputs.positions
    logits = by_step(evidence.baseline, steps).astype(np.float64)
    rows = targets.reshape(evidence.samples, steps)
    counted = rows >= 0
    place = np.arange(logits.shape[-1]) == rows[..., None]
    reference = log_softmax(logits)[place]

    def entropy(change: NDArray[np.float32]) -> Doubles:
        moved = log_softmax(logits + by_step(change, steps))
        rises = np.zeros((len(change), *counted.shape))
        rises[:, counted] = np.maximum(reference - moved[:, place], 0.0)
        found: Doubles = rises.sum(axis=-1)
        return found

    bases = counted.sum(axis=-1).astype(np.float64)
    return PerSample(for_layers(evidence, at, entropy), bases, rise_to_score, allowed)


SCORER = Scorer(
    name="task_loss",
    title="Task loss",
    kind="measured",
    description="Rise of the loss against the targets when this layer alone is quantized: "
    "cross-entropy, or squared error over the targets' variance, of the samples that it harms, "
    "from 1e-5 (0) to 0.1 (1), on the selection split.",
    needs="selection split with targets, and no custom metric",
    source="Layer-alone change of the task loss, as in Nagel et al. 2021, arXiv:2106.08295",
    score=from_samples(per_sample),
    per_sample=per_sample,
)
