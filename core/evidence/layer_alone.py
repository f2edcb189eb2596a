"""What was measured of each layer on its own: its weights, its own output, its own gradients.

Everything here is local: a layer's inputs are the reference's, so no error of an earlier layer is
in it. Every array is optional, since folders of an older version have none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


VARIANTS = ("integer", "weights", "activations", "percentile", "equalised", "half")
"""How a layer's own output was rounded: as the scheme does, its weights alone, its activations
alone, with ranges that hold 99.9 % of the values, with equalised input channels, in FP16."""

CLIPPED = 0.5
"""Share of the squared error from which on clipping may be the cause, and its remedy is measured."""


@dataclass(frozen=True, eq=False)
class LocalStatistics:
    """Axes: P simulated precisions, L layers.

    `weight_kurtosis`: mean fourth power of the weights that an integer precision rounds, each
    standardised within its output channel; 0 for a layer without any.

    `gradient_error`: expected divergence (KL in nats, or relative MSE of values) from the layer's
    own output error, to second order; infinity where the output was not finite. `trace_error`:
    the same from mean curvature times squared error of its weights.

    `sqnr_db` [V, L]: SQNR of the layer's own output under each of `VARIANTS`, in the narrowest
    precision; NaN where a variant means nothing. The rest is the worst over the layer's
    activations, NaN where it has none: `activation_outliers`, the calibrated range over that
    which holds 99.9 % of the values; `activation_imbalance`, the largest |value| of the widest
    input channel over that of the median one; `clipping`, the share of the squared error that
    selection samples owe to values outside the calibrated range. `clipping_gain_db` is what SQNR
    gains on selection samples with ranges that hold these values too; NaN where clipping has less
    than half of that share, and in folders of older versions. `output_peak` is the largest |value|
    of the layer's output, `output_underflow` the share of its values other than 0 that lie below
    the smallest normal FP16 number.
    """

    weight_kurtosis: Doubles | None = None  # [L]
    gradient_error: Doubles | None = None  # [P, L]
    trace_error: Doubles | None = None  # [P, L]
    sqnr_db: Doubles | None = None  # [V, L]
    activation_outliers: Doubles | None = None  # [L]
    activation_imbalance: Doubles | None = None  # [L]
    clipping: Doubles | None = None  # [L]
    clipping_gain_db: Doubles | None = None  # [L]
    output_peak: Doubles | None = None  # [L]
    output_underflow: Doubles | None = None  # [L]


AXES = {
    "weight_kurtosis": ("L",),
    "gradient_error": ("P", "L"),
    "trace_error": ("P", "L"),
    "sqnr_db": (str(len(VARIANTS)), "L"),
    "activation_outliers": ("L",),
    "activation_imbalance": ("L",),
    "clipping": ("L",),
    "clipping_gain_db": ("L",),
    "output_peak": ("L",),
    "output_underflow": ("L",),
}
"""The axes of every array: P, L, or a number."""

MAY_BE_UNKNOWN = frozenset(AXES) - {"weight_kurtosis", "gradient_error", "trace_error"}
"""Arrays in which NaN stands for what is not known of a layer."""
