"""Whose grid weights by groups lie on: quantizers, by name.

Tools place the grid of a group differently. Each of these gives, bit for bit, the codes and scales
that its tool packs (`core.numerics.groups`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from core.errors import PolicyError
from core.numerics.precision import Precision, TensorFormat


@dataclass(frozen=True, slots=True)
class Quantizer:
    """A grid by groups. `bits` are the widths that the tool has kernels for; in another the default
    quantizer stands in. With `has_zeros` a group has a float32 zero point beside its scale. `note` is
    what to know of figures on this grid.
    """

    name: str
    title: str
    source: str
    bits: tuple[int, ...]
    has_zeros: bool = False
    note: str = ""

    def of(self, precision: Precision) -> Precision:
        """`precision` with its weights on this grid, where it has groups of such a width."""
        if not precision.is_weights_only:
            return precision
        grid = self.name if self is not DEFAULT and self.takes(precision.weights) else ""
        return replace(precision, weights=replace(precision.weights, grid=grid))

    def takes(self, kept: TensorFormat) -> bool:
        """Whether it has groups of this width."""
        return kept.bits in self.bits


DEFAULT = Quantizer(
    "ort-rtn",
    "rounding to nearest; the value of largest magnitude is met exactly",
    "onnxruntime 1.32, MatMulNBitsQuantizer, symmetric (core/mlas/lib/q4_dq.cpp)",
    (2, 4, 8),
)
HQQ = Quantizer(
    "ort-hqq",
    "half-quadratic quantization (HQQ): zero points that leave the least error, outliers counted "
    "less; 4 bytes more a group, slower than FP32 in ONNX Runtime, and 8 bits as ort-rtn",
    "Badri and Shaji 2023, mobiusml.github.io/hqq_blog; onnxruntime 1.32, HQQWeightOnlyQuantizer, "
    "whose 8 bits the CPU kernel refuses",
    (2, 4),
    has_zeros=True,
    note="Weights by groups are HQQ's, whose zero points are floats: ONNX Runtime's CPU kernel unpacks "
    "them at every product, which takes up to 27 times as long as FP32 in 4 bits (docs/method.md). "
    "Estimated latencies do not know that; `verify` measures it.",
)
TORCHAO = Quantizer(
    "torchao",
    "rounding to nearest; the largest magnitude lies half a step beyond the grid's upper end",
    "torchao 0.18, IntxWeightOnlyConfig with MappingType.SYMMETRIC, which refuses a width that no "
    "group divides: here its last group is filled up",
    (2, 4, 8),
)

QUANTIZERS = {one.name: one for one in (DEFAULT, HQQ, TORCHAO)}


def names() -> tuple[str, ...]:
    """Every quantizer by name, the default first."""
    return tuple(QUANTIZERS)


def get(name: str) -> Quantizer:
    """The quantizer called `name`; raises `PolicyError` with the known names otherwise."""
    if name not in QUANTIZERS:
        raise PolicyError(f"There is no quantizer {name!r}.", f"Use one of: {', '.join(names())}.")
    return QUANTIZERS[name]


def of_format(kept: TensorFormat) -> Quantizer:
    """The quantizer of a format by groups."""
    return QUANTIZERS[kept.grid] if kept.grid else DEFAULT
