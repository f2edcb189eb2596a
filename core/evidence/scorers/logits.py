"""Logits as arrays of answers, and the log-probabilities they stand for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.evidence.evidence import Outputs


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log-probabilities of logits [..., K], shifted by the largest so that exp is safe."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def by_step(outputs: NDArray[np.floating], steps: int) -> NDArray[np.floating]:
    """[..., N, steps * K] -> [..., N, steps, K]."""
    return outputs.reshape(*outputs.shape[:-1], steps, outputs.shape[-1] // steps)


def named(answers: NDArray[np.floating], outputs: Outputs) -> NDArray[np.floating]:
    """Those of the logits [..., K] that an answer may be: all, but for the rest of many classes."""
    return answers[..., :-1] if outputs.classes else answers
