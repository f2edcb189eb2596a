"""Importance: how much the method weighs a layer of this type.

Source: the sensitivity method of the reference document; tiers and reasons in `priors.toml`.
"""

from __future__ import annotations

from core.evidence.scorers.contract import Scorer
from core.evidence.scorers.prior import METHOD, by_role

SCORER = Scorer(
    name="importance",
    title="Importance",
    kind="prior",
    description="Importance weight of the layer type, divided by the largest (0.35).",
    needs="nothing",
    source=METHOD,
    score=by_role("importance"),
)
