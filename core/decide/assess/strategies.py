"""The strategies that are always there to compare with."""

from __future__ import annotations

from core.decide.policy.policy import Policy
from core.decide.study import Study

TOP_K_SHARES = (0.25, 0.5, 0.75)
DOCUMENT = "Document thresholds"


def named_strategies(study: Study, policy: Policy) -> dict[str, Policy]:
    """Title -> policy: the document's thresholds, uniform maps, and top-k at three shares.

    Top-k ranks by the weights of `policy`; all use its hardware. Precisions that the analysis
    does not know are left out.
    """
    device = policy.hardware
    document = Policy(hardware=device)
    its_own = {document.high, document.medium, document.low}
    found = {DOCUMENT: document} if its_own <= set(study.precisions) else {}
    for name in study.precisions:
        found[f"All {name}"] = Policy(strategy="uniform", uniform=name, hardware=device)
    usual = study.default_policy
    high, low = (
        mine if mine in study.precisions else other
        for mine, other in ((policy.high, usual.high), (policy.low, usual.low))
    )
    computing = int(study.layers.computes.sum())
    for share in TOP_K_SHARES:
        k = round(share * computing)
        found[f"Top-k {share:.0%}"] = Policy(
            strategy="top-k", top_k=k, weights=policy.weights, high=high, low=low,
            hardware=device,
        )  # fmt: skip
    return found
