"""What a threshold costs and gains over its whole range, for one policy."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from core.decide import answer
from core.decide.assess.outcome import outcome
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.quantity import Quantity

MAX_POINTS = 48


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One threshold with the figures of the map it gives. `high_layers` reach the threshold."""

    high_threshold: float
    high_layers: int
    totals: dict[str, Quantity]


def sweep_policy(policy: Policy) -> Policy:
    """What a sweep of the high threshold depends on, and nothing else: a key for caches.

    The high threshold itself is swept; the medium one matters only where MEDIUM and LOW go to
    different precisions.
    """
    medium = policy.medium_threshold if policy.medium != policy.low else 0.0
    return replace(policy, strategy="thresholds", high_threshold=1.0, medium_threshold=medium)


def threshold_curve(
    study: Study, policy: Policy, max_points: int = MAX_POINTS
) -> tuple[CurvePoint, ...]:
    """Maps of `policy` as its high threshold moves from 1 down to 0, each with its figures.

    Only thresholds that change the map are visited: the distinct scores, at most `max_points`
    of them, evenly spread over the layers. Points come in the order of falling threshold.
    """
    base = sweep_policy(policy)
    scores = answer.decide(study, base).scores
    points = []
    seen: set[bytes] = set()
    for threshold in _stops(scores, max_points):
        medium = min(base.medium_threshold, threshold)
        chosen = answer.decide(
            study, replace(base, high_threshold=threshold, medium_threshold=medium)
        )
        key = chosen.codes.tobytes()
        if key in seen:
            continue
        seen.add(key)
        points.append(_point(study, chosen, threshold))
    return tuple(points)


def _stops(scores: NDArray[np.float64], max_points: int) -> list[float]:
    """Thresholds worth visiting, falling: 1 (only scores of 1 are HIGH), then each score."""
    distinct = np.unique(scores)[::-1]
    if len(distinct) > max_points:
        ranked = np.sort(scores)[::-1]
        places = np.linspace(0, len(ranked) - 1, max_points).round().astype(int)
        distinct = np.unique(ranked[places])[::-1]
    inside = [float(value) for value in distinct if 0.0 < value < 1.0]
    return [1.0, *inside, 0.0]


def _point(study: Study, chosen: PrecisionMap, threshold: float) -> CurvePoint:
    reached = int((chosen.scores >= threshold).sum())
    return CurvePoint(threshold, reached, outcome(study, chosen).totals)
