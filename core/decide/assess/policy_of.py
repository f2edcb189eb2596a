"""The policy that gives a map back, so that a map from a file can be tuned further."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from core.decide import answer
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.policy import Policy
from core.decide.study import Study


def policy_of(study: Study, chosen: PrecisionMap) -> Policy:
    """The map's own policy, with an override for each layer that it would decide otherwise.

    `study.decide(policy_of(study, chosen))` has the codes of `chosen`. Raises `PolicyError`
    where that takes more rules than a policy holds.
    """
    policy = chosen.policy
    decided = answer.decide(study, policy)
    differing = np.flatnonzero(decided.codes != chosen.codes)
    if not len(differing):
        return policy
    by_hand = {
        study.layers.names[i]: study.precisions[chosen.codes[i]]
        for i in differing
        if chosen.codes[i] >= 0
    }
    return replace(policy, overrides=tuple(sorted({**dict(policy.overrides), **by_hand}.items())))
