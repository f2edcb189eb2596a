"""Analyses whose measurement is not over."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from core.analysis.analysis import Analysis
from core.evidence.evidence import Partial
from tests.core.synthetic import synthetic_analysis

MEASURED = 8
"""Layers of the synthetic analysis that are measured."""


def partial_analysis(layers: int = 14, measured: int = MEASURED) -> Analysis:
    """A synthetic analysis as it is when its first layers are measured and no whole map is."""
    analysis = synthetic_analysis(layers, samples=40)
    evidence = analysis.evidence
    assert evidence is not None
    known = np.zeros(evidence.allowed.shape, dtype=np.bool_)
    known[:, :measured] = True
    known[:, ~analysis.layers.computes] = True
    changes = np.where(known[..., None, None], evidence.perturbations, np.float32(0))
    computes = int(analysis.layers.computes.sum())
    done = int((known.all(axis=0) & analysis.layers.computes).sum())
    return replace(
        analysis,
        partial=Partial(done, computes, 40, 200),
        evidence=replace(
            evidence, perturbations=changes, measured=known, whole=evidence.whole[:0],
            probes=evidence.probes[:0], probe_codes=evidence.probe_codes[:0],
        ),
    )  # fmt: skip
