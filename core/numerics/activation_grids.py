"""The integer grid that a scheme lays over an activation's range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from core.numerics.rounding import TINY, Range, affine_grid, round_affine
from core.numerics.scheme import Scheme

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Grid:
    """Integers from `low` to `high`; integer q stands for scale * (q - zero_point)."""

    scale: float
    zero_point: int
    low: int
    high: int


def grid_of(seen: Range, scheme: Scheme) -> Grid:
    """The grid of an activation whose calibrated range is `seen`.

    0 is on every grid. A range of the single point 0 gives scale 1. Symmetric: the largest
    absolute value falls on 2^(b-1) - 1, the last integer on the other side is unused unless
    clipping reaches it (TensorRT, NNCF).
    """
    bits = scheme.activation_bits
    if scheme.activations == "affine":
        return Grid(*affine_grid(seen, bits), 0, 2**bits - 1)
    largest = max(abs(seen.low), abs(seen.high))
    is_signed = scheme.activations == "symmetric" or seen.low < 0
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)
    scale = largest / high
    return Grid(scale if scale >= TINY else 1.0, 0, low, high)


def round_to(x: Tensor, grid: Grid) -> Tensor:
    """`x` on `grid`; what lies outside is clipped."""
    return round_affine(x, grid.scale, grid.zero_point, grid.low, grid.high)


def squared_errors(
    values: Doubles, counts: Doubles, ranges: list[Range], scheme: Scheme
) -> Doubles:
    """Sum over `values` [n], each met `counts` times, of (x - rounded x)^2 for each of `ranges`."""
    found = []
    for seen in ranges:
        grid = grid_of(seen, scheme)
        levels: Any = np.rint(values / grid.scale) + grid.zero_point
        np.clip(levels, grid.low, grid.high, out=levels)
        error = values - (levels - grid.zero_point) * grid.scale
        found.append(float(np.dot(counts, np.square(error))))
    return np.array(found)
