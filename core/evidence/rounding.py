"""Rounding tensors to a precision and back: the arithmetic of the simulation.

Every function returns a new float32 tensor that holds only values the precision can hold; none
changes its argument. Rounding is to nearest, ties to even, as ONNX QuantizeLinear does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.precision import Precision


@dataclass(frozen=True, slots=True)
class Range:
    """The observed minimum and maximum of an activation."""

    low: float
    high: float

    def merge(self, other: Range) -> Range:
        """The range that covers both."""
        return Range(min(self.low, other.low), max(self.high, other.high))


def affine_grid(observed: Range, bits: int) -> tuple[float, int]:
    """Scale and zero point of an unsigned grid over `observed` widened to hold 0.

    ONNX Runtime's `compute_scale_zp`: scale = (max - min) / (2^bits - 1), and 0 is on the grid.
    A range of a single point 0 gives scale 1.
    """
    low, high = min(observed.low, 0.0), max(observed.high, 0.0)
    steps = 2**bits - 1
    scale = (high - low) / steps
    if scale < torch.finfo(torch.float32).tiny:
        return 1.0, 0
    return scale, int(min(max(round(-low / scale), 0), steps))


def round_activation(x: Tensor, observed: Range, bits: int) -> Tensor:
    """`x` on the unsigned affine grid of `observed`; what lies outside is clipped."""
    scale, zero_point = affine_grid(observed, bits)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, 2**bits - 1)


def weight_scales(weight: Tensor, bits: int, channel_axis: int = 0) -> Tensor:
    """Symmetric scale per output channel, shape (channels,); 1 for an all-zero channel."""
    largest = weight.detach().abs().transpose(0, channel_axis).flatten(1).amax(1)
    scales = largest / (2 ** (bits - 1) - 1)
    return torch.where(scales > torch.finfo(torch.float32).tiny, scales, torch.ones_like(scales))


def round_weight(weight: Tensor, precision: Precision, channel_axis: int = 0) -> Tensor:
    """A weight of a product or convolution as `precision` stores it."""
    if precision.kind == "float":
        return round_float(weight, precision)
    scales = weight_scales(weight, precision.bits, channel_axis)
    limit = 2 ** (precision.bits - 1) - 1
    zeros = torch.zeros(len(scales), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(
        weight.detach(), scales, zeros, channel_axis, -limit, limit
    )


def round_table(table: Tensor, precision: Precision) -> Tensor:
    """An embedding table: one affine grid for the whole tensor, as ORT stores Gather's input."""
    if precision.kind == "float":
        return round_float(table, precision)
    observed = Range(float(table.min()), float(table.max()))
    return round_activation(table.detach(), observed, precision.bits)


def round_bias(bias: Tensor, input_scale: float, scales: Tensor) -> Tensor:
    """A bias as int32 at scale s_x * s_w, shape (channels,)."""
    step = input_scale * scales.double()
    return (torch.round(bias.detach().double() / step) * step).float()


def round_float(x: Tensor, precision: Precision) -> Tensor:
    """`x` cast to a float format and back; overflow shows as infinity."""
    if precision.float_dtype == "float32":
        return x
    return x.detach().to(getattr(torch, precision.float_dtype)).to(torch.float32)
