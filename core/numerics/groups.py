"""Weights in few bits by groups: neighbours along the inputs of a product share a scale.

The grid is the symmetric one of ONNX Runtime's MatMulNBits (onnxruntime 1.32,
core/mlas/lib/q4_dq.cpp and quantization/matmul_nbits_quantizer.py): of the value with the largest
magnitude in a group, sign and all, scale = value / -2^(b-1), code = clamp(round(w / scale +
2^(b-1)), 0, 2^b - 1), so that this value is met exactly. A last group that is not full is filled up with
the code 0, which nothing is multiplied with.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.numerics.precision import TensorFormat


@dataclass(frozen=True, eq=False)
class Grouped:
    """A weight of a product with `inputs` K and N outputs: `codes` [N, groups, group] uint8 and
    `scales` [N, groups] float32; code c stands for (c - 2^(bits-1)) * scale.
    """

    codes: Tensor
    scales: Tensor
    bits: int
    inputs: int

    def restored(self) -> Tensor:
        """The weight [N, K] as a kernel that multiplies floats meets it."""
        values: Tensor = (self.codes.float() - 2 ** (self.bits - 1)) * self.scales[..., None]
        return values.flatten(1)[:, : self.inputs]

    def packed(self) -> Tensor:
        """The codes as bytes [N, groups, group * bits / 8]; the first of a byte in its low bits."""
        a_byte = 8 // self.bits
        parts = self.codes.reshape(*self.codes.shape[:2], -1, a_byte).to(torch.int32)
        shifts = torch.arange(0, 8, self.bits, dtype=torch.int32, device=parts.device)
        packed: Tensor = (parts << shifts).sum(-1).to(torch.uint8)
        return packed


def grouped(weight: Tensor, kept: TensorFormat) -> Grouped:
    """`weight` [N, K], float32, in groups along its last axis. Does not change it."""
    n, inputs = weight.shape
    padding = -inputs % kept.group
    values = torch.nn.functional.pad(weight.detach(), (0, padding)).reshape(n, -1, kept.group)
    middle = 2 ** (kept.bits - 1)
    high, low = values.amax(-1), values.amin(-1)
    scales = torch.where(high.abs() > low.abs(), high, low) / -middle
    inverse = torch.where(scales != 0, 1 / scales, torch.zeros_like(scales))
    levels = away_from_zero(values * inverse[..., None] + middle)
    codes = levels.clamp(0, 2 * middle - 1).to(torch.uint8)
    codes.flatten(1)[:, inputs:] = 0
    return Grouped(codes, scales, kept.bits, inputs)


def away_from_zero(x: Tensor) -> Tensor:
    """To the nearest integer, halves away from zero, as C's roundf does."""
    whole = x.trunc()
    return whole + torch.where((x - whole).abs() >= 0.5, x.sign(), torch.zeros_like(x))


def round_grouped(weight: Tensor, kept: TensorFormat, axis: int) -> Tensor:
    """A matrix whose groups lie along `axis` as `kept` stores it, in its own shape."""
    if axis % 2:
        return grouped(weight, kept).restored()
    return grouped(weight.T, kept).restored().T.contiguous()
