"""Scorers: how sensitive a layer is, each by one way of looking at it.

One small file per scorer, one registry, one contract (`contract.py`). A new scorer is a file with a
`SCORER` and a line here; sliders, tables and the contract test follow.
"""

from __future__ import annotations

from collections.abc import Mapping

from core.errors import PolicyError
from core.evidence.evidence import Evidence
from core.evidence.scorers import (
    empirical,
    flips,
    gradient_error,
    importance,
    kl,
    output_error,
    task_loss,
    theory,
    trace_error,
    weight_error,
    weight_outliers,
)
from core.evidence.scorers.contract import Doubles, PerSample, Scorer
from core.layers import LayerTable

SCORERS: Mapping[str, Scorer] = {
    module.SCORER.name: module.SCORER
    for module in (
        theory,
        importance,
        empirical,
        weight_error,
        weight_outliers,
        output_error,
        kl,
        flips,
        task_loss,
        gradient_error,
        trace_error,
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
) -> dict[str, Doubles]:
    """Scores of every scorer that has what it needs, by name, each of shape (L,)."""
    found = {name: s.score(layers, evidence, precision) for name, s in SCORERS.items()}
    return {name: score for name, score in found.items() if score is not None}


def sample_table(evidence: Evidence | None, precision: str = "INT8") -> dict[str, PerSample]:
    """What each sample contributes to every score that was measured on samples, by name."""
    if evidence is None:
        return {}
    found = {name: s.per_sample(evidence, precision) for name, s in SCORERS.items() if s.per_sample}
    return {name: samples for name, samples in found.items() if samples is not None}
