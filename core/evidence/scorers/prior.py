"""A score that a rule of thumb gives to a layer's role."""

from __future__ import annotations

from core.evidence.scorers import priors
from core.evidence.scorers.contract import Score

METHOD = "Sensitivity method of the reference document"


def by_role(kind: str) -> Score:
    """Scores of prior `kind`, read from `priors.toml`."""
    return lambda layers, evidence, precision: priors.score_roles(kind, layers.roles)
