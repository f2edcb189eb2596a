"""The strategies that are always there to compare with."""

from __future__ import annotations

from dataclasses import replace

from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.numerics import precision as registry

TOP_K_SHARES = (0.25, 0.5, 0.75)
DOCUMENT = "Document thresholds"


def named_strategies(study: Study, policy: Policy) -> dict[str, Policy]:
    """Title -> policy: the document's thresholds, uniform maps, and top-k at three shares.

    Top-k ranks by the weights of `policy`; all use its hardware, and choose from what it allows.
    Precisions that the analysis does not know or the policy does not allow are left out, but for the
    reference, which others are held against.
    """
    device = policy.hardware
    document = Policy(hardware=device)
    its_own = {document.high, document.medium, document.low}
    allowed = policy.allowed
    may = {name for name in study.precisions if policy.allows(name)}
    found = {DOCUMENT: replace(document, allowed=allowed)} if its_own <= may else {}
    for name in study.precisions:
        if name in may or name == registry.REFERENCE:
            found[f"All {name}"] = Policy(
                strategy="uniform", uniform=name, hardware=device,
                allowed=allowed if name in may else (),
            )  # fmt: skip
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
            hardware=device, allowed=allowed,
        )  # fmt: skip
    return found
