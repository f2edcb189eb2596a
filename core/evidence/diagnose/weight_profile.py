"""How the weights of a layer lie on the grid of an integer precision; needs no data.

A symmetric grid has one scale per output channel, so weights are counted relative to the largest
of their channel: bin k of 255 holds the weights that an 8-bit grid rounds to level k - 127. A
coarser grid of b bits has its levels at multiples of 1 / (2^(b-1) - 1) on the same axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from core.layers import Layer, LayerTable, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

BINS = 255
"""Levels of a symmetric 8-bit grid."""

PART = 2**22
"""Weights that are looked at at once, so that it takes little memory."""

GridKind = Literal["weight", "table"]


@dataclass(frozen=True, eq=False, slots=True)
class WeightProfile:
    """The weights of one stored tensor.

    `kind` *weight*: `counts` over weight ÷ largest of its channel, -1 to 1. *table* (an embedding,
    one affine grid for all): `counts` over the tensor's own range, widened to hold 0. `low` and
    `high` are the smallest and largest weight per output channel, in the weight's own unit.
    """

    layer: str
    tensor: str
    kind: GridKind
    counts: NDArray[np.int64]  # (BINS,)
    low: NDArray[np.float32]  # (channels,)
    high: NDArray[np.float32]  # (channels,)

    @property
    def levels_used(self) -> int:
        """How many of the 255 levels hold any weight."""
        return int((self.counts > 0).sum())

    @property
    def effective_bits(self) -> float:
        """Shannon entropy of the levels in bits, 0 to 7.99; higher = the grid is used better."""
        total = self.counts.sum()
        if not total:
            return 0.0
        shares = self.counts[self.counts > 0] / total
        return float(-(shares * np.log2(shares)).sum()) + 0.0

    @property
    def imbalance(self) -> float | None:
        """Largest absolute weight of the widest channel ÷ that of the median channel; 1 = equal.

        How much one scale for the whole tensor would cost the median channel, which has this
        many times fewer levels then. None where the median channel is all zero.
        """
        largest = np.maximum(np.abs(self.low), np.abs(self.high))
        median = float(np.median(largest)) if len(largest) else 0.0
        return float(largest.max()) / median if median > 0 else None


def axis_ends(profile: WeightProfile) -> tuple[float, float]:
    """What the first and the last bin of `profile` stand for."""
    if profile.kind == "weight":
        return -1.0, 1.0
    return min(float(profile.low.min()), 0.0), max(float(profile.high.max()), 0.0)


def weight_profiles(layers: LayerTable, tensors: Mapping[str, Tensor]) -> tuple[WeightProfile, ...]:
    """Profiles of every tensor that an integer precision rounds, in the order of the layers."""
    return tuple(
        _profile(layer, spec, tensors[spec.name])
        for layer in layers
        for spec in layer.tensors
        if spec.on_grid
    )


def _profile(layer: Layer, spec: TensorSpec, tensor: Tensor) -> WeightProfile:
    kind = spec.kind
    values = tensor.detach().float().numpy()
    if kind == "table":
        low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
        flat = values.reshape(len(values), -1)
    else:
        axis = spec.scale_axis
        flat = values.reshape(1, -1)
        if axis is not None:
            flat = np.moveaxis(values, axis, 0).reshape(spec.channels, -1)
    counts = np.zeros(BINS, dtype=np.int64)
    rows = max(PART // max(flat.shape[1], 1), 1)
    for part in (flat[i : i + rows] for i in range(0, len(flat), rows)):
        if kind == "table":
            place = (part - low) / ((high - low) or 1.0) * (BINS - 1)
        else:
            largest = np.abs(part).max(axis=1, keepdims=True)
            share = np.divide(part, largest, out=np.zeros_like(part), where=largest > 0)
            place = share * (BINS // 2) + BINS // 2
        counts += np.bincount(np.rint(place).astype(np.uint8).ravel(), minlength=BINS)
    ends = flat.reshape(1, -1) if kind == "table" else flat
    return WeightProfile(
        layer=layer.name,
        tensor=spec.name,
        kind="table" if kind == "table" else "weight",
        counts=counts,
        low=ends.min(axis=1).astype(np.float32),
        high=ends.max(axis=1).astype(np.float32),
    )
