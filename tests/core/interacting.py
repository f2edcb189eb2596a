"""Synthetic analyses whose layers disturb the same directions, so that interactions matter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from core.analysis.analysis import Analysis
from core.evidence.evidence import Evidence, Outputs
from tests.core.synthetic import synthetic_analysis, synthetic_layers


def interacting_evidence(
    count: int, samples: int = 40, outputs: int = 4, seed: int = 0, *, bent: float = 0.0
) -> Evidence:
    """Perturbations along few shared directions, of two precisions, the narrower 8 times larger.

    With `bent` whole maps are no sums any more: part of the change grows with the square of its
    length, so that projectors with a residual suit better.
    """
    rng = np.random.default_rng(seed)
    layers = synthetic_layers(count)
    shared = rng.normal(size=(4, samples, outputs))
    mixed = np.einsum("lk,kno->lno", rng.normal(size=(count, 4)), shared)
    own = rng.normal(size=(2, count, samples, outputs))
    size = (
        np.exp(rng.normal(-4.0, 0.8, size=(1, count, 1, 1)))
        * np.array([0.125, 1.0])[:, None, None, None]
    )
    changes = ((0.7 * mixed[None] + 0.7 * own) * size).astype(np.float32)
    changes[:, ~layers.computes] = 0
    codes = rng.integers(-1, 2, size=(6, count)).astype(np.int8)
    codes[:, ~layers.computes] = -1

    def simulated(row: np.ndarray) -> np.ndarray:
        total = sum(
            (changes[c, i] for i, c in enumerate(row) if c >= 0),
            start=np.zeros((samples, outputs), np.float32),
        )
        length = np.linalg.norm(total, axis=1, keepdims=True)
        return (total * (1 + bent * length)).astype(np.float32)

    every = [np.where(layers.computes, p, -1) for p in range(2)]
    baseline = (rng.normal(size=(samples, outputs)) * 2).astype(np.float32)
    return Evidence(
        precisions=("FP16", "INT8"), scheme="ort-cpu", baseline=baseline,
        targets=baseline.argmax(1).astype(np.int64), perturbations=changes,
        whole=np.stack([simulated(row) for row in every]), probe_codes=codes,
        probes=np.stack([simulated(row) for row in codes]),
        weight_sqnr_db=np.full((2, count), 40.0), allowed=np.ones((2, count), np.bool_),
    )  # fmt: skip


def interacting_analysis(
    count: int, *, seed: int = 0, bent: float = 0.0, values: bool = False
) -> Analysis:
    """An analysis of `count` layers in a chain; of a model of values where asked for."""
    evidence = interacting_evidence(count, seed=seed, bent=bent)
    if values:
        rng = np.random.default_rng(seed + 1)
        targets = evidence.baseline + rng.normal(size=evidence.baseline.shape).astype(np.float32)
        evidence = replace(evidence, outputs=Outputs("values"), targets=targets)
    return replace(
        synthetic_analysis(count, measured=False, samples=evidence.samples), evidence=evidence
    )
