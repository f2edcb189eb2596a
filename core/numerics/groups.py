"""Weights in few bits by groups: neighbours along the inputs of a product share a scale.

Where the grid of a group lies is its quantizer's (`core.numerics.quantizers`); codes, scales and zero
points are those that the tool packs, bit for bit. A last group that is not full is filled up with 0
before, and with the code 0 after, which nothing is multiplied with.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from core.numerics import quantizers
from core.numerics.precision import TensorFormat


@dataclass(frozen=True, eq=False)
class Grouped:
    """A weight of a product with `inputs` K and N outputs: `codes` [N, groups, group] uint8,
    `scales` [N, groups] float32 and, where the quantizer has such, `zeros` [N, groups] float32; code
    c stands for (c - zero) * scale, zero being 2^(bits-1) without `zeros`.
    """

    codes: Tensor
    scales: Tensor
    bits: int
    inputs: int
    zeros: Tensor | None = None

    def restored(self) -> Tensor:
        """The weight [N, K] as a kernel that multiplies floats meets it."""
        zeros = 2 ** (self.bits - 1) if self.zeros is None else self.zeros[..., None]
        values: Tensor = (self.codes.float() - zeros) * self.scales[..., None]
        return values.flatten(1)[:, : self.inputs]

    def packed(self) -> Tensor:
        """The codes as bytes [N, groups, group * bits / 8]; the first of a byte in its low bits."""
        a_byte = 8 // self.bits
        parts = self.codes.reshape(*self.codes.shape[:2], -1, a_byte).to(torch.int32)
        shifts = torch.arange(0, 8, self.bits, dtype=torch.int32, device=parts.device)
        packed: Tensor = (parts << shifts).sum(-1).to(torch.uint8)
        return packed

    def packed_rows(self) -> Tensor:
        """The codes as bytes [N, inputs * bits / 8], the last group not filled up."""
        return self.packed().flatten(1)[:, : self.inputs * self.bits // 8]


def grouped(weight: Tensor, kept: TensorFormat) -> Grouped:
    """`weight` [N, K], float32, in groups along its last axis. Does not change it."""
    values = _parted(weight, kept)
    quantizer, zeros = quantizers.of_format(kept), None
    if quantizer is quantizers.HQQ:
        codes, scales, zeros = _half_quadratic(values, kept)
    elif quantizer is quantizers.TORCHAO:
        codes, scales = _by_magnitude(values, kept.bits)
    else:
        codes, scales = _by_largest(values, kept.bits)
    return _whole(codes, scales, kept, weight.shape[1], zeros)


def grouped_rows(table: Tensor, kept: TensorFormat) -> Grouped:
    """A table [N, K] whose rows are looked up, float32, in groups along them. Does not change it.

    GatherBlockQuantized has no zero points that are floats: for HQQ the default quantizer stands in.
    As ONNX Runtime's own does it for tables in 4 bits (`quantize_ndarray` of
    matmul_nbits_quantizer.py), the default one divides by the scale, and rounds halves to even.
    """
    if quantizers.of_format(kept) is quantizers.TORCHAO:
        return grouped(table, kept)
    values = _parted(table, kept)
    middle = 2 ** (kept.bits - 1)
    scales = _signed_largest(values) / -middle
    levels = torch.where(scales[..., None] == 0, 0.0, values / scales[..., None])
    codes = torch.round(levels).clamp(-middle, middle - 1) + middle
    return _whole(codes, scales, kept, table.shape[1])


def _parted(weight: Tensor, kept: TensorFormat) -> Tensor:
    """`weight` [N, K] as [N, groups, group], the last group filled up with 0."""
    padding = -weight.shape[1] % kept.group
    filled = torch.nn.functional.pad(weight.detach(), (0, padding))
    return filled.reshape(len(weight), -1, kept.group)


def _whole(
    codes: Tensor, scales: Tensor, kept: TensorFormat, inputs: int, zeros: Tensor | None = None
) -> Grouped:
    """The codes of `inputs` values a row, 0 behind them."""
    codes = codes.to(torch.uint8)
    codes.flatten(1)[:, inputs:] = 0
    return Grouped(codes, scales, kept.bits, inputs, zeros)


def _signed_largest(values: Tensor) -> Tensor:
    """Of each group the value of largest magnitude, sign and all."""
    high, low = values.amax(-1), values.amin(-1)
    return torch.where(high.abs() > low.abs(), high, low)


def _by_largest(values: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Of the value with the largest magnitude in a group, sign and all, scale = value / -2^(b-1),
    code = clamp(round(w / scale + 2^(b-1)), 0, 2^b - 1), so that this value is met exactly.
    """
    middle = 2 ** (bits - 1)
    scales = _signed_largest(values) / -middle
    inverse = torch.where(scales != 0, 1 / scales, torch.zeros_like(scales))
    levels = away_from_zero(values * inverse[..., None] + middle)
    return levels.clamp(0, 2 * middle - 1), scales


def _by_magnitude(values: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Of the largest magnitude in a group, scale = magnitude / ((2^b - 1) / 2), code = clamp(round(w /
    scale), -2^(b-1), 2^(b-1) - 1) + 2^(b-1), halves to even.
    """
    middle = 2 ** (bits - 1)
    scales = values.abs().amax(-1) / ((2 * middle - 1) / 2)
    scales = scales.clamp(min=torch.finfo(torch.float32).smallest_normal)
    levels = torch.round(values * (1.0 / scales)[..., None])
    return levels.clamp(-middle, middle - 1) + middle, scales


def _half_quadratic(values: Tensor, kept: TensorFormat) -> tuple[Tensor, Tensor, Tensor]:
    """What ONNX Runtime's own class gives, in float32: on another device it would take halves."""
    with _quiet():
        from onnxruntime.quantization.matmul_nbits_quantizer import (
            HQQWeightOnlyQuantConfig,
            HQQWeightOnlyQuantizer,
        )
    config = HQQWeightOnlyQuantConfig(block_size=kept.group, bits=kept.bits)
    codes, scales, zeros = HQQWeightOnlyQuantizer(config).quantize_internal(
        values.flatten(1).cpu(), bits=kept.bits, group_size=kept.group
    )
    codes, scales, zeros = (one.to(values.device) for one in (codes, scales, zeros))
    return codes.reshape(values.shape), scales, zeros


@contextmanager
def _quiet() -> Iterator[None]:
    """What is imported here sets up logging for the whole program, unless that was done before."""
    root, done = logging.getLogger(), logging.NullHandler()
    root.addHandler(done)
    try:
        yield
    finally:
        root.removeHandler(done)


def away_from_zero(x: Tensor) -> Tensor:
    """To the nearest integer, halves away from zero, as C's roundf does."""
    whole = x.trunc()
    return whole + torch.where((x - whole).abs() >= 0.5, x.sign(), torch.zeros_like(x))


def round_grouped(weight: Tensor, kept: TensorFormat, axis: int) -> Tensor:
    """A matrix whose groups lie along `axis` as `kept` stores it, in its own shape."""
    if axis % 2:
        return grouped(weight, kept).restored()
    return grouped(weight.T, kept).restored().T.contiguous()
