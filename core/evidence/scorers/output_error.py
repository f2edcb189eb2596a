"""Output error: change of the model's outputs with one layer alone quantized, as SQNR.

Logits: signal and error are centred over the classes of a step, since softmax ignores a common
shift. Values: the signal is their variation over samples.

Source: layer-alone SQNR, as in Pandey et al. 2023, "A practical mixed precision algorithm for
post-training quantization", arXiv:2302.05397.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.evidence.evidence import Evidence
from core.evidence.scorers.contract import (
    Doubles,
    PerSample,
    Scorer,
    for_layers,
    from_samples,
    sqnr_to_score,
)
from core.evidence.scorers.logits import by_step


def _to_score(noise_to_signal: Doubles) -> Doubles:
    with np.errstate(divide="ignore"):
        return sqnr_to_score(-10 * np.log10(noise_to_signal))


def _energy(values: NDArray[np.floating], *, centred: bool) -> Doubles:
    """Sum of squares over the outputs of each sample: [..., N, S, K] -> [..., N]."""
    given = values - values.mean(axis=-1, keepdims=True) if centred else values
    energy: Doubles = np.einsum("...nsk,...nsk->...n", given, given, dtype=np.float64)
    return energy


def per_sample(evidence: Evidence, precision: str) -> PerSample | None:
    """Energy of the change over that of the signal, sample by sample."""
    at = evidence.position(precision)
    if at is None:
        return None
    steps = evidence.outputs.positions
    if evidence.outputs.kind == "values":
        signal, centred = evidence.spread_by_sample, False
    else:
        # A model with a single output has no common shift to ignore.
        centred = evidence.baseline.shape[1] > steps
        signal = _energy(by_step(evidence.baseline, steps), centred=centred)
    noise = for_layers(evidence, at, lambda x: _energy(by_step(x, steps), centred=centred))
    return PerSample(noise, signal, _to_score, evidence.allowed[at])


SCORER = Scorer(
    name="output_error",
    title="Output error",
    kind="measured",
    description="Change of the model's outputs when this layer alone is quantized: SQNR at the "
    "output from 60 dB (0) to 10 dB (1), on the selection split.",
    needs="selection split",
    source="Layer-alone SQNR, as in Pandey et al. 2023, arXiv:2302.05397",
    score=from_samples(per_sample),
    per_sample=per_sample,
)
