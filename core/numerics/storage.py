"""How a stored tensor is kept in a precision, and what that takes.

In a float precision every tensor is cast. In integers a weight lies on symmetric grids, one per
output channel, and an embedding table on an affine one, each with a float32 scale and a zero point;
a bias is int32, with a float32 scale and an int32 zero point per channel where ONNX has it as an
input of the product (Conv, Gemm), and is added in float32 after a MatMul; all else stays float32, or
what it is where it is no float32 (an index, a mask, complex numbers). In a format of weights alone the
matrices that have groups are packed with a float32 scale a group, and a float32 zero point where the
quantizer has such, and all else stays. In floats over scales the weights that products read have a
float32 scale per output channel, and all else stays; so have, in integers with ranges set while the
model runs, the matrices that could have groups, beside tables. Which of these a tensor
is (`TensorSpec.kind`) follows from the layer's state under a scheme (`core.numerics.states.under`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from core.layers import TensorSpec
from core.numerics import quantizers
from core.numerics.precision import Precision, TensorFormat

Form = Literal["float", "symmetric", "scaled", "affine", "groups", "int32", "complex"]

FLOAT_BYTES = 4  # float32
COMPLEX_BYTES = 8  # complex64
SCALE_BYTES = FLOAT_BYTES
ZERO_POINT_BYTES = 1
GRID_BYTES = SCALE_BYTES + ZERO_POINT_BYTES
BIAS_BYTES = 4  # int32


@dataclass(frozen=True, slots=True)
class Storage:
    """A tensor as a precision keeps it: `size` values of `bits` each, packed, and `grids` scales,
    each with its zero point if it has one, of `grid_bytes` together.
    """

    form: Form
    size: int
    bits: int
    grids: int = 0
    grid_bytes: int = GRID_BYTES

    @property
    def bytes(self) -> int:
        """All that is stored; bits that fill no whole byte take one."""
        return math.ceil(self.size * self.bits / 8) + self.grids * self.grid_bytes


def grouped_bytes(outputs: int, inputs: int, kept: TensorFormat) -> tuple[int, int]:
    """Bytes of the packed codes of a matrix in groups along its inputs, the last one filled up, and
    the number of scales.
    """
    groups = outputs * math.ceil(inputs / kept.group)
    return groups * kept.group * kept.bits // 8, groups


def storage(spec: TensorSpec, precision: Precision) -> Storage:
    """How `precision` keeps the tensor `spec`."""
    if spec.kind == "complex":
        return Storage("complex", spec.size, 8 * COMPLEX_BYTES)
    if spec.width:
        return Storage("float", spec.size, spec.width)
    if precision.is_cast:
        return Storage("float", spec.size, precision.bits)
    if precision.is_weights_only:
        if spec.group_axis < 0:
            return Storage("float", spec.size, 8 * FLOAT_BYTES)
        inputs = spec.shape[spec.group_axis]
        packed, scales = grouped_bytes(spec.size // max(inputs, 1), inputs, precision.weights)
        bits = precision.bits
        if spec.kind == "table":  # rows are not filled up
            return Storage("groups", spec.size, bits, scales, SCALE_BYTES)
        has_zeros = quantizers.of_format(precision.weights).has_zeros
        each = SCALE_BYTES + FLOAT_BYTES * has_zeros
        return Storage("groups", packed * 8 // bits, bits, scales, each)
    if precision.is_scaled:
        if spec.kind != "weight" or spec.operation < 0:
            return Storage("float", spec.size, 8 * FLOAT_BYTES)
        return Storage("scaled", spec.size, precision.bits, spec.channels, SCALE_BYTES)
    if precision.is_dynamic and spec.kind != "table":
        if spec.group_axis < 0:
            return Storage("float", spec.size, 8 * FLOAT_BYTES)
        return Storage("symmetric", spec.size, precision.bits, spec.channels, SCALE_BYTES)
    if spec.kind == "bias":
        size = spec.grids or spec.size  # one for each product that reads it
        return Storage("int32", size, 8 * BIAS_BYTES, spec.grids, SCALE_BYTES + BIAS_BYTES)
    if not spec.on_grid:
        return Storage("float", spec.size, 8 * FLOAT_BYTES)
    form: Form = "affine" if spec.kind == "table" else "symmetric"
    return Storage(form, spec.size, precision.bits, spec.channels)
