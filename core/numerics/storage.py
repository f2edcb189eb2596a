"""How a stored tensor is kept in a precision, and what that takes.

In a float precision every tensor is cast. In integers a weight lies on symmetric grids, one per
output channel, and an embedding table on an affine one, each with a float32 scale and a zero point;
a bias is int32, whose scale is that of its product; all else stays float32. Complex numbers are
complex64 in every precision. Which of these a tensor
is (`TensorSpec.kind`) follows from the layer's state under a scheme (`core.numerics.states.under`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from core.layers import TensorSpec
from core.numerics.precision import Precision

Form = Literal["float", "symmetric", "affine", "int32", "complex"]

FLOAT_BYTES = 4  # float32
COMPLEX_BYTES = 8  # complex64
SCALE_BYTES = FLOAT_BYTES
ZERO_POINT_BYTES = 1
GRID_BYTES = SCALE_BYTES + ZERO_POINT_BYTES
BIAS_BYTES = 4  # int32


@dataclass(frozen=True, slots=True)
class Storage:
    """A tensor as a precision keeps it: `size` values of `bits` each, packed, and `grids` pairs of
    a scale and a zero point.
    """

    form: Form
    size: int
    bits: int
    grids: int = 0

    @property
    def bytes(self) -> int:
        """All that is stored; bits that fill no whole byte take one."""
        return math.ceil(self.size * self.bits / 8) + self.grids * GRID_BYTES


def storage(spec: TensorSpec, precision: Precision) -> Storage:
    """How `precision` keeps the tensor `spec`."""
    if spec.kind == "complex":
        return Storage("complex", spec.size, 8 * COMPLEX_BYTES)
    if precision.kind == "float":
        return Storage("float", spec.size, precision.bits)
    if spec.kind == "bias":
        return Storage("int32", spec.size, 8 * BIAS_BYTES)
    if not spec.on_grid:
        return Storage("float", spec.size, 8 * FLOAT_BYTES)
    form: Form = "affine" if spec.kind == "table" else "symmetric"
    return Storage(form, spec.size, precision.bits, spec.channels)
