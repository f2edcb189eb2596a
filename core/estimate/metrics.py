"""Accuracy, divergence and flips of a classifier's outputs, from logits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.evidence.scorers.logits import log_softmax

Floats = NDArray[np.float64]


def kl_per_sample(reference_log_p: Floats, logits: NDArray[np.floating]) -> Floats:
    """KL(reference || given) in nats per sample, shape (N,); 0 = the same distribution."""
    q = log_softmax(logits)
    divergence: Floats = (np.exp(reference_log_p) * (reference_log_p - q)).sum(axis=1)
    return np.maximum(divergence, 0.0)


def correct(logits: NDArray[np.floating], targets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the largest logit is the target's, shape (N,)."""
    hits: NDArray[np.bool_] = logits.argmax(axis=1) == targets
    return hits
