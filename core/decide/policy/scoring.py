"""From scores to levels: the weighted total and its two thresholds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from core.decide.policy.policy import Policy
from core.errors import PolicyError
from core.evidence import scorers

LEVELS = ("LOW", "MEDIUM", "HIGH")
LOW, MEDIUM, HIGH = range(3)

DECIMALS = 9
"""Totals are rounded here before they meet a threshold: 0.4 * 1 + 0.4 * 1 + 0.2 * 1 is
0.9999999999999999 or 1 depending on the order of summation."""


def total_scores(
    table: Mapping[str, NDArray[np.float64]], policy: Policy, layers: int
) -> NDArray[np.float64]:
    """Weighted sum of the scores, shape (L,), in [0, 1], higher = more sensitive.

    Scores of resamples, (R, L), give totals of resamples.

    Raises `PolicyError` if a weighted scorer has no scores for this analysis.
    """
    total = np.zeros(layers)
    for name, share in policy.normalised_weights().items():
        if name not in table:
            available = ", ".join(table)
            missing = scorers.get(name)
            raise PolicyError(
                f"Scorer {missing.title!r} ({name}) has no scores: this analysis has no "
                f"measurements for it. It needs: {missing.needs}.",
                f"Weigh only {available}, or measure the model with `analyze`.",
            )
        total = total + share * table[name]
    return np.round(total, DECIMALS)


def levels(scores: NDArray[np.float64], policy: Policy) -> NDArray[np.int8]:
    """0 = LOW, 1 = MEDIUM, 2 = HIGH for each score, shape (L,)."""
    at_least_medium = scores >= policy.medium_threshold
    at_least_high = scores >= policy.high_threshold
    return at_least_medium.astype(np.int8) + at_least_high.astype(np.int8)
