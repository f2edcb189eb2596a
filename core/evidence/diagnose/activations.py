"""What a layer's activations hold over a split, and the ranges and scales that follow from it.

Equalisation follows Xiao et al. 2023, "SmoothQuant", arXiv:2211.10438: the input channels of a
linear layer or convolution are divided by s_j = sqrt(max|x_j| / max|w_j|) and its weights multiplied
by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.engines.variant import InputChannels
from core.evidence.diagnose.own_output import LayerOutputs
from core.numerics.calibrate.histograms import quantiles
from core.numerics.ranges import Site
from core.numerics.rounding import Range, observed
from core.source.batches import Inputs

BINS = 2048
TAIL = 0.0005
"""Share of the values that the percentile range leaves out at each end."""


@dataclass(eq=False)
class ActivationStatistics:
    """What one activation held over a split."""

    counts: Tensor  # [BINS] over the calibrated range
    low: Tensor | None = None  # [channels]
    high: Tensor | None = None
    weight: Tensor | None = None  # [channels] largest |w| that each channel meets
    clipped: float = 0.0  # squared distance of values from the calibrated range
    values: int = 0
    seen: Range | None = None  # of all of them, and of the calibrated range

    def add(self, value: Tensor, whole: Range) -> bool:
        """Take note of `value`, whose calibrated range is `whole`; whether all of it is finite."""
        low, high = (float(end) for end in value.aminmax())
        finite, seen, plain = value, Range(low, high), math.isfinite(low) and math.isfinite(high)
        if not plain:
            finite = value[torch.isfinite(value)]
            seen = observed(finite)
        inside = finite
        if seen.low < whole.low or seen.high > whole.high:
            inside = finite.clamp(whole.low, whole.high)
            self.clipped += float((finite - inside).double().square().sum())
        self.values += finite.numel()
        self.seen = seen.merge(self.seen or whole)
        if whole.high > whole.low:
            self.counts += torch.histc(inside, BINS, whole.low, whole.high).double()
        return plain

    def add_channels(self, value: Tensor, channels: InputChannels) -> None:
        """Take note of the `channels` of a finite `value`."""
        axis = channels.axis
        rows = value.transpose(axis, -1).reshape(-1, value.shape[axis])
        low, high = rows.amin(0), rows.amax(0)
        if self.low is not None and self.high is not None and self.low.shape == low.shape:
            low, high = torch.minimum(low, self.low), torch.maximum(high, self.high)
        self.low, self.high = low, high
        self.weight = channels.largest

    def inner(self, whole: Range) -> Range:
        """The range without `TAIL` of the values at each end."""
        width = (whole.high - whole.low) / BINS
        left = whole.low + width * np.arange(BINS, dtype=np.float64)
        counts = self.counts.cpu().numpy()
        return Range(*quantiles(left, left + width, counts, (TAIL, 1 - TAIL)))


def activation_statistics(own: LayerOutputs, inputs: Inputs) -> dict[Site, ActivationStatistics]:
    """What every calibrated activation holds on `inputs`, against its calibrated range."""
    found: dict[Site, ActivationStatistics] = {}

    def observe(site: Site, value: Tensor, channels: InputChannels | None) -> None:
        whole = own.ranges.get(site)
        if whole is None or value.numel() == 0:
            return
        one = found.setdefault(
            site, ActivationStatistics(torch.zeros(BINS, dtype=torch.float64, device=value.device))
        )
        plain = one.add(value, whole)
        if channels is not None and value.ndim >= 2 and plain:
            one.add_channels(value, channels)

    own.record(inputs, observe)
    return found


@dataclass(eq=False)
class Channels:
    """How a product's inputs are equalised at one site, and the range that is left."""

    factors: Tensor
    span: Range


def equalised(seen: Mapping[Site, ActivationStatistics]) -> dict[Site, Channels]:
    """The equalisation of every product whose input channels are known."""
    found = {}
    for site, one in seen.items():
        if one.low is None or one.high is None or one.weight is None:
            continue
        largest = torch.maximum(one.low.abs(), one.high.abs())
        if largest.shape != one.weight.shape or len(largest) < 2:
            continue
        factors = (largest / one.weight).sqrt()
        alive = torch.isfinite(factors) & (factors > 0)
        factors = torch.where(alive, factors, torch.ones_like(factors))
        low, high = float((one.low / factors).min()), float((one.high / factors).max())
        found[site] = Channels(factors, Range(low, high))
    return found
