"""What a layer's activations hold over a split, and the ranges and scales that follow from it.

Equalisation follows Xiao et al. 2023, "SmoothQuant", arXiv:2211.10438: the input channels of a
linear layer are divided by s_j = sqrt(max|x_j| / max|w_j|) and its weights multiplied by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.numerics.calibrate.histograms import quantiles
from core.numerics.ranges import Site
from core.numerics.rounding import Range

BINS = 2048
TAIL = 0.0005
"""Share of the values that the percentile range leaves out at each end."""


@dataclass(eq=False)
class ActivationStatistics:
    """What one activation held over a split."""

    counts: Tensor  # [BINS] over the calibrated range
    low: Tensor | None = None  # [channels]
    high: Tensor | None = None
    weight: Tensor | None = None  # [channels] largest |w| that each channel meets; linear alone
    clipped: float = 0.0  # squared distance of values from the calibrated range
    values: int = 0

    def inner(self, whole: Range) -> Range:
        """The range without `TAIL` of the values at each end."""
        width = (whole.high - whole.low) / BINS
        left = whole.low + width * np.arange(BINS, dtype=np.float64)
        counts = self.counts.cpu().numpy()
        return Range(*quantiles(left, left + width, counts, (TAIL, 1 - TAIL)))


@dataclass(eq=False)
class Channels:
    """How a linear layer's inputs are equalised at one site, and the range that is left."""

    factors: Tensor
    span: Range


def equalised(seen: Mapping[Site, ActivationStatistics]) -> dict[Site, Channels]:
    """The equalisation of every linear operation whose input channels are known."""
    found = {}
    for site, one in seen.items():
        if one.low is None or one.high is None or one.weight is None:
            continue
        largest = torch.maximum(one.low.abs(), one.high.abs())
        if largest.shape != one.weight.shape:
            continue
        factors = (largest / one.weight).sqrt()
        alive = torch.isfinite(factors) & (factors > 0)
        factors = torch.where(alive, factors, torch.ones_like(factors))
        low, high = float((one.low / factors).min()), float((one.high / factors).max())
        found[site] = Channels(factors, Range(low, high))
    return found
