"""A map summed up by the role of its layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.decide.assess.outcome import Outcome
from core.decide.policy.decision import PrecisionMap
from core.layers import ROLES


@dataclass(frozen=True, slots=True)
class RoleSummary:
    """Layers of one role: how many, what they hold, and how many sit in each precision.

    `precisions` counts layers that compute; `idle` those that do nothing at inference.
    """

    role: str
    layers: int
    params: int
    macs: int
    size_bytes: int
    mean_score: float
    precisions: dict[str, int]
    idle: int


def by_role(chosen: PrecisionMap, found: Outcome) -> tuple[RoleSummary, ...]:
    """One summary per role that occurs, in the order of the roles. Sums equal the map's totals."""
    table = chosen.layers
    roles = np.array(table.roles, dtype=object)
    summaries = []
    for role in ROLES:
        here = np.flatnonzero(roles == role)
        if not len(here):
            continue
        codes = chosen.codes[here]
        summaries.append(
            RoleSummary(
                role=role,
                layers=len(here),
                params=int(table.params[here].sum()),
                macs=int(table.macs[here].sum()),
                size_bytes=int(found.layer_bytes[here].sum()),
                mean_score=float(chosen.scores[here].mean()),
                precisions={
                    name: int((codes == code).sum()) for code, name in enumerate(chosen.precisions)
                },
                idle=int((codes < 0).sum()),
            )
        )
    return tuple(summaries)
