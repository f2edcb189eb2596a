"""What was measured of each layer on its own: its weights, its own output, its own gradients.

Everything here is local: a layer's inputs are the reference's, so no error of an earlier layer is
in it. Every array is optional, since folders of an older version have none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LocalStatistics:
    """Axes: P simulated precisions, L layers.

    `weight_kurtosis`: mean fourth power of the weights that an integer precision rounds, each
    standardised within its output channel; 0 for a layer without any.

    `gradient_error`: expected divergence (KL in nats, or relative MSE of values) from the layer's
    own output error, to second order; infinity where the output was not finite. `trace_error`:
    the same from mean curvature times squared error of its weights.
    """

    weight_kurtosis: Doubles | None = None  # [L]
    gradient_error: Doubles | None = None  # [P, L]
    trace_error: Doubles | None = None  # [P, L]


AXES = {
    "weight_kurtosis": ("L",),
    "gradient_error": ("P", "L"),
    "trace_error": ("P", "L"),
}
"""The axes of every array: P, L, or a number."""

MAY_BE_UNKNOWN: frozenset[str] = frozenset()
"""Arrays in which NaN stands for what is not known of a layer."""
