"""Theory: how sensitive a layer of this type should be.

Source: the sensitivity method of the reference document; tiers and reasons in `priors.toml`.
"""

from __future__ import annotations

from core.evidence.scorers.contract import Scorer
from core.evidence.scorers.prior import METHOD, by_role

SCORER = Scorer(
    name="theory",
    title="Theory",
    kind="prior",
    description="How sensitive a layer of this type is by theory: HIGH 1, MEDIUM 0.65, LOW 0.2, NONE 0.",
    needs="nothing",
    source=METHOD,
    score=by_role("theory"),
)
