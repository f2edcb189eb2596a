"""Rounding tensors to a precision and back: the arithmetic of the simulation.

Every function returns a new float32 tensor that holds only values the precision can hold; none
changes its argument. Rounding is to nearest, ties to even, as ONNX QuantizeLinear does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.numerics.precision import Precision, TensorFormat

ZERO = torch.zeros(())
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, slots=True)
class Range:
    """The observed minimum and maximum of an activation."""

    low: float
    high: float

    def merge(self, other: Range) -> Range:
        """The range that covers both."""
        return Range(min(self.low, other.low), max(self.high, other.high))


def observed(value: Tensor) -> Range:
    """Minimum and maximum of `value`; what is not finite (a mask) is no part of a range.

    A tensor without a finite value gives the range of 0 alone.
    """
    if value.numel() == 0:
        return Range(0.0, 0.0)
    seen = Range(float(value.min()), float(value.max()))
    if math.isfinite(seen.low) and math.isfinite(seen.high):
        return seen
    return observed(value[torch.isfinite(value)])


def affine_grid(seen: Range, bits: int) -> tuple[float, int]:
    """Scale and zero point of an unsigned grid over `seen` widened to hold 0.

    ONNX Runtime's `compute_scale_zp`: scale = (max - min) / (2^bits - 1), and 0 is on the grid.
    A range of a single point 0 gives scale 1.
    """
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    steps = 2**bits - 1
    scale = (high - low) / steps
    if scale < TINY:
        return 1.0, 0
    return scale, int(min(max(round(-low / scale), 0), steps))


def round_affine(x: Tensor, scale: float, zero_point: int, low: int, high: int) -> Tensor:
    """`x` on the grid scale * (q - zero_point) with `low` <= q <= `high`, the bits of
    `torch.fake_quantize_per_tensor_affine`; what lies outside is clipped.

    PyTorch's CPU kernel works number by number: these steps take a third of its time.
    """
    plain = x.dtype == torch.float32 and x.device.type == "cpu"
    if not plain or math.isnan(x.sum().item()):  # of which the kernel makes the lowest value
        return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, low, high)
    step = np.float32(scale)
    found = torch.mul(x, float(np.float32(1) / step), out=torch.empty_like(x))
    found.round_().clamp_(low - zero_point, high - zero_point)
    return torch.add(ZERO, found, alpha=float(step), out=found)  # 0 + … is no negative zero


def round_activation(x: Tensor, seen: Range, bits: int) -> Tensor:
    """`x` on the unsigned affine grid of `seen`; what lies outside is clipped."""
    scale, zero_point = affine_grid(seen, bits)
    return round_affine(x, scale, zero_point, 0, 2**bits - 1)


def top(kept: TensorFormat) -> float:
    """The largest value that a format holds, which the largest value of a tensor is laid on: of b bits
    of integer 2^(b-1) - 1, of a float format its own (E4M3: 448).
    """
    if kept.kind == "float":
        return float(torch.finfo(getattr(torch, kept.dtype)).max)
    return float(2 ** (kept.bits - 1) - 1)


def scales_of(weight: Tensor, kept: TensorFormat, channel_axis: int | None = 0) -> Tensor:
    """Symmetric scale per output channel, shape (channels,); 1 for an all-zero channel.

    Without a channel axis one scale serves the whole tensor.
    """
    if channel_axis is None or weight.ndim < 2:
        largest = weight.detach().abs().amax().reshape(1)
    else:
        largest = weight.detach().abs().transpose(0, channel_axis).flatten(1).amax(1)
    scales = largest / top(kept)
    return torch.where(scales > TINY, scales, torch.ones_like(scales))


def round_weight(weight: Tensor, precision: Precision, channel_axis: int | None = 0) -> Tensor:
    """A weight of a product or convolution as `precision` stores it."""
    if precision.is_cast:
        return round_float(weight, precision)
    scales = scales_of(weight, precision.weights, channel_axis)
    if precision.is_scaled:
        if channel_axis is not None and weight.ndim > 1:
            along = [1] * weight.ndim
            along[channel_axis] = -1
            scales = scales.reshape(along)
        return round_scaled(weight.detach(), scales, precision.weights)
    limit = int(top(precision.weights))
    if channel_axis is None or weight.ndim < 2:
        scale = float(scales)
        return round_affine(weight.detach(), scale, 0, -limit, limit)
    zeros = torch.zeros(len(scales), dtype=torch.int32, device=scales.device)
    return torch.fake_quantize_per_channel_affine(
        weight.detach(), scales, zeros, channel_axis % weight.ndim, -limit, limit
    )


def round_scaled(x: Tensor, scales: Tensor, kept: TensorFormat) -> Tensor:
    """`x` over `scales`, which spread over it, cast to a float format, and restored. What lies beyond
    the format's largest value becomes that: a cast alone may make it infinite or NaN.
    """
    limit = top(kept)
    cast = (x / scales).clamp(-limit, limit).to(getattr(torch, kept.dtype))
    return cast.to(torch.float32) * scales


def activation_scale(seen: Range, kept: TensorFormat) -> float:
    """What the largest value of `seen` is divided by to fall on the largest of a float format; 1 for
    the range of 0 alone.
    """
    scale = max(abs(seen.low), abs(seen.high)) / top(kept)
    return scale if scale >= TINY else 1.0


def round_table(table: Tensor, precision: Precision) -> Tensor:
    """An embedding table: one affine grid for the whole tensor, as ORT stores Gather's input."""
    if precision.is_cast:
        return round_float(table, precision)
    seen = Range(float(table.min()), float(table.max()))
    return round_activation(table.detach(), seen, precision.bits)


def round_bias(bias: Tensor, input_scale: float, scales: Tensor) -> Tensor:
    """A bias as int32 at scale s_x * s_w, shape (channels,)."""
    step = input_scale * scales.double()
    return (torch.round(bias.detach().double() / step) * step).float()


def round_float(x: Tensor, precision: Precision) -> Tensor:
    """`x` cast to a float format and back; overflow shows as infinity."""
    if precision.float_dtype == "float32":
        return x
    return x.detach().to(getattr(torch, precision.float_dtype)).to(torch.float32)
