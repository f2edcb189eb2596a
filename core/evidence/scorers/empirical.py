"""Empirical rules: what practice advises for a layer of this type.

Source: the sensitivity method of the reference document; tiers and reasons in `priors.toml`.
"""

from __future__ import annotations

from core.evidence.scorers.contract import Scorer
from core.evidence.scorers.prior import METHOD, by_role

SCORER = Scorer(
    name="empirical",
    title="Empirical rules",
    kind="prior",
    description="What practice advises for this layer type, in the tiers of the theory score.",
    needs="nothing",
    source=METHOD,
    score=by_role("empirical"),
)
