"""Synthetic analyses of four precisions, for what a person allows of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from core.analysis.analysis import Analysis
from tests.core.interacting import interacting_analysis

PRECISIONS = ("FP32", "FP16", "BF16", "INT8")


def four_precisions(
    count: int, *, seed: int = 0, float_only: int = -1, groups: tuple[tuple[int, ...], ...] = ()
) -> Analysis:
    """An analysis of `count` layers that holds two half precisions, BF16 three times as far off.

    Integers mean nothing for the layer `float_only`; layers of `groups` share a precision.
    """
    analysis = interacting_analysis(count, seed=seed)
    evidence = analysis.evidence
    assert evidence is not None
    half, narrow = evidence.perturbations
    changes = np.stack([half, 3 * half, narrow])
    layers = list(analysis.layers.layers)
    if float_only >= 0:
        changes[2, float_only] = 0
        layer = layers[float_only]
        spec = tuple(replace(t, kind="float", channels=1, operation=-1) for t in layer.tensors)
        layers[float_only] = replace(layer, state="float", tensors=spec, activation_scales=0)
    rng = np.random.default_rng(seed)
    codes = rng.integers(-1, 3, size=(6, count)).astype(np.int8)
    codes[:, ~analysis.layers.computes] = -1
    probes = [
        sum((changes[c, i] for i, c in enumerate(row) if c >= 0), np.zeros_like(changes[0, 0]))
        for row in codes
    ]
    return replace(
        analysis,
        layers=replace(analysis.layers, layers=tuple(layers), groups=groups),
        evidence=replace(
            evidence, precisions=PRECISIONS[1:], perturbations=changes, whole=changes.sum(axis=1),
            probe_codes=codes, probes=np.stack(probes).astype(np.float32),
            weight_sqnr_db=np.full((3, count), 40.0), allowed=np.ones((3, count), np.bool_),
        ),
    )  # fmt: skip


def partly_known(analysis: Analysis, *unknown: tuple[str, int]) -> Analysis:
    """`analysis` as it is while these pairs of precision and layer are not measured yet."""
    evidence = analysis.evidence
    assert evidence is not None
    known = np.ones(evidence.allowed.shape, np.bool_)
    for name, layer in unknown:
        known[evidence.precisions.index(name), layer] = False
    changes = np.where(known[..., None, None], evidence.perturbations, np.float32(0))
    return replace(
        analysis,
        evidence=replace(
            evidence, perturbations=changes, measured=known, whole=evidence.whole[:0],
            probes=evidence.probes[:0], probe_codes=evidence.probe_codes[:0],
        ),
    )  # fmt: skip
