"""Scorers: how sensitive a layer is, by one way of looking at it.

Each maps to [0, 1] by a fixed rule that does not depend on the other layers or on the model, so
that an absolute threshold means the same everywhere. Higher = more sensitive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.errors import PolicyError
from core.evidence import priors
from core.evidence.evidence import Evidence
from core.layers import LayerTable

SQNR_HARMLESS_DB = 60.0
SQNR_RUINOUS_DB = 10.0

Score = Callable[[LayerTable, Evidence | None, str], NDArray[np.float64] | None]


@dataclass(frozen=True, slots=True)
class Scorer:
    """A named score with its source. `score(layers, evidence, precision)` gives shape (L,), or
    None where what it needs was not measured. `kind` is *prior*, *weights* or *measured*.
    """

    name: str
    title: str
    kind: str
    description: str
    source: str
    score: Score


def sqnr_to_score(sqnr_db: NDArray[np.float64]) -> NDArray[np.float64]:
    """DB -> [0, 1]: 0 at 60 dB and above, 1 at 10 dB and below, linear between."""
    span = SQNR_HARMLESS_DB - SQNR_RUINOUS_DB
    score: NDArray[np.float64] = np.clip((SQNR_HARMLESS_DB - sqnr_db) / span, 0.0, 1.0)
    return score


def output_sqnr_db(evidence: Evidence, precision: str) -> NDArray[np.float64] | None:
    """SQNR of the outputs with one layer alone in `precision`, dB, shape (L,).

    Logits: signal and error are centred over the classes of a step, since softmax ignores a
    common shift. Values: the signal is their variation over samples. Infinity where nothing changes, minus infinity where the outputs were not finite.
    """
    at = evidence.position(precision)
    if at is None:
        return None
    if evidence.outputs.kind == "values":
        signal, noise = evidence.spread, evidence.energy[at]
    else:
        steps = evidence.outputs.positions
        # A model with a single output has no common shift to ignore.
        shift = evidence.baseline.shape[1] > steps
        signal = _energy(_by_step(evidence.baseline[None], steps), shift)[0]
        noise = _energy(_by_step(evidence.perturbations[at], steps), shift)
    with np.errstate(divide="ignore"):
        sqnr = 10 * np.log10(signal / noise) if signal > 0 else np.where(noise > 0, -np.inf, np.inf)
    return np.where(evidence.allowed[at], sqnr, -np.inf)


def _by_step(values: NDArray[np.float32], steps: int) -> NDArray[np.float32]:
    """[R, N, steps * K] -> [R, N * steps, K]."""
    return values.reshape(len(values), values.shape[1] * steps, values.shape[2] // steps)


def _energy(values: NDArray[np.float32], centred: bool) -> NDArray[np.float64]:
    """Sum of squares over samples and outputs of each row [R, N, K]; shape [R]."""
    given = values - values.mean(axis=2, keepdims=True) if centred else values
    energy: NDArray[np.float64] = np.einsum("rnk,rnk->r", given, given, dtype=np.float64)
    return energy


def _prior(kind: str) -> Score:
    return lambda layers, evidence, precision: priors.score_roles(kind, layers.roles)


def _weight_error(
    layers: LayerTable, evidence: Evidence | None, precision: str
) -> NDArray[np.float64] | None:
    at = evidence.position(precision) if evidence is not None else None
    return None if evidence is None or at is None else sqnr_to_score(evidence.weight_sqnr_db[at])


def _output_error(
    layers: LayerTable, evidence: Evidence | None, precision: str
) -> NDArray[np.float64] | None:
    sqnr = output_sqnr_db(evidence, precision) if evidence is not None else None
    return None if sqnr is None else sqnr_to_score(sqnr)


METHOD = "Sensitivity method of the reference document"
SCORERS: Mapping[str, Scorer] = {
    scorer.name: scorer
    for scorer in (
        Scorer(
            "theory",
            "Theory",
            "prior",
            "How sensitive a layer of this type is by theory: HIGH 1, MEDIUM 0.65, LOW 0.2, NONE 0.",
            METHOD,
            _prior("theory"),
        ),
        Scorer(
            "importance",
            "Importance",
            "prior",
            "Importance weight of the layer type, divided by the largest (0.35).",
            METHOD,
            _prior("importance"),
        ),
        Scorer(
            "empirical",
            "Empirical rules",
            "prior",
            "What practice advises for this layer type, in the tiers of the theory score.",
            METHOD,
            _prior("empirical"),
        ),
        Scorer(
            "weight_error",
            "Weight error",
            "weights",
            "Rounding error of the stored weights alone: SQNR from 60 dB (0) to 10 dB (1). "
            "Needs no data; 0 for a layer without weights to round.",
            "SQNR per layer, as in Lin, Talathi and Annapureddy 2016, arXiv:1511.06393",
            _weight_error,
        ),
        Scorer(
            "output_error",
            "Output error",
            "measured",
            "Change of the model's outputs when this layer alone is quantized: SQNR at the output "
            "from 60 dB (0) to 10 dB (1), on the selection split.",
            "Layer-alone SQNR, as in Pandey et al. 2023, arXiv:2302.05397",
            _output_error,
        ),
    )
}


def get(name: str) -> Scorer:
    """The scorer called `name`; raises `PolicyError` with the known names otherwise."""
    try:
        return SCORERS[name]
    except KeyError:
        known = ", ".join(SCORERS)
        raise PolicyError(f"Unknown scorer {name!r}.", f"Use one of: {known}.") from None


def score_table(
    layers: LayerTable, evidence: Evidence | None, precision: str = "INT8"
) -> dict[str, NDArray[np.float64]]:
    """Scores of every scorer that has what it needs, by name, each of shape (L,)."""
    found = {name: s.score(layers, evidence, precision) for name, s in SCORERS.items()}
    return {name: score for name, score in found.items() if score is not None}
