"""Weight error: what rounding a layer's stored weights loses, without any data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.layers import Layer, LayerTable, TensorSpec
from core.numerics.groups import grouped_rows, round_grouped
from core.numerics.precision import Precision
from core.numerics.rounding import round_float, round_table, round_weight
from core.numerics.states import kept_as
from core.numerics.storage import storage


def stored_in(spec: TensorSpec, weight: Tensor, precision: Precision) -> Tensor | None:
    """`weight` as `precision` stores it; None where it does not round such a tensor."""
    form = storage(spec, precision).form
    if form in ("symmetric", "scaled"):
        return round_weight(weight, precision, spec.scale_axis)
    if form == "affine":
        return round_table(weight, precision)
    if form == "groups" and spec.kind == "table":
        return grouped_rows(weight, precision.weights).restored()
    if form == "groups":
        return round_grouped(weight, precision.weights, spec.group_axis)
    return round_float(weight, precision) if form == "float" and precision.is_cast else None


PART = 2**22
"""Elements that are looked at in double precision at once, so that it takes little memory."""


def squares(values: Tensor, less: Tensor | None = None) -> float:
    """Sum of the squares of `values`, or of what they differ by from `less`, in double precision."""
    flat = values.detach().flatten()
    other = None if less is None else less.detach().flatten()
    total = 0.0
    for start in range(0, len(flat), PART):
        part = flat[start : start + PART].double()
        if other is not None:
            part -= other[start : start + PART].double()
        total += float(part.square_().sum())
    return total


def channel_parts(values: Tensor, axis: int | None) -> Iterator[Tensor]:
    """`values` as rows of output channels in double precision, at most `PART` elements at once
    unless one channel has more; without an `axis` each is a row of its own.
    """
    channels = values.detach().transpose(0, axis or 0)
    rows = max(PART // max(channels[0].numel(), 1), 1) if len(channels) else 1
    for start in range(0, len(channels), rows):
        part = channels[start : start + rows]
        yield part.reshape(len(part), -1).double()


def layer_weight_sqnr_db(
    layer: Layer, tensors: Mapping[str, Tensor], precision: Precision
) -> float:
    """Signal to quantization noise of a layer's weights in dB; higher = less error.

    10 log10(sum w^2 / sum (w - q(w))^2) over all weights that `precision` rounds; infinity
    where it rounds none or loses nothing.
    """
    signal = noise = 0.0
    precision = kept_as(layer, precision)
    for spec in layer.tensors:
        weight = tensors[spec.name].detach()
        rounded = stored_in(spec, weight, precision)
        if rounded is None:
            continue
        signal += squares(weight)
        noise += squares(weight, rounded)
    if not math.isfinite(noise):
        return -math.inf
    return 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else math.inf


def weight_sqnr_db(
    layers: LayerTable, tensors: Mapping[str, Tensor], precisions: tuple[Precision, ...]
) -> NDArray[np.float64]:
    """`layer_weight_sqnr_db` of every precision and layer, shape [P, L]."""
    with torch.no_grad():
        rows = [[layer_weight_sqnr_db(x, tensors, p) for x in layers] for p in precisions]
    return np.array(rows, dtype=np.float64).reshape(len(precisions), len(layers))


def weight_kurtosis(layers: LayerTable, tensors: Mapping[str, Tensor]) -> NDArray[np.float64]:
    """Kurtosis of each layer's weights within their output channels, shape (L,).

    The mean over all weights of ((w - mean) / deviation)^4, mean and deviation those of the
    channel; 1.8 for a uniform, 3 for a normal distribution. 0 for a layer without weights that an
    integer precision rounds, infinity where a weight is not finite.
    """
    return np.array([_kurtosis(layer, tensors) for layer in layers], dtype=np.float64)


def _mean_and_variance(values: Tensor) -> tuple[Tensor, Tensor]:
    """Of all `values` together, in double precision."""
    n = max(values.numel(), 1)
    mean = torch.stack([rows.sum() for rows in channel_parts(values, None)]).sum() / n
    parts = [(rows - mean).square_().sum() for rows in channel_parts(values, None)]
    return mean, torch.stack(parts).sum() / n


def _kurtosis(layer: Layer, tensors: Mapping[str, Tensor]) -> float:
    total, count = 0.0, 0
    for spec in layer.tensors:
        if not spec.on_grid:
            continue
        weight = tensors[spec.name].detach()
        if not bool(torch.isfinite(weight).all()):
            return math.inf
        axis = None if spec.kind == "table" else spec.scale_axis
        whole = None if axis is not None else _mean_and_variance(weight)
        for rows in channel_parts(weight, axis):
            mean = rows.mean(dim=1, keepdim=True) if whole is None else whole[0]
            squared = rows.sub_(mean).square_()
            variance = squared.mean(dim=1, keepdim=True) if whole is None else whole[1]
            variance = variance.expand(len(rows), 1)
            alive = (variance > 0).flatten()  # a channel of equal weights has no outlier
            total += float((squared[alive] / variance[alive]).square_().sum())
            count += int(alive.sum()) * rows.shape[1]
    return total / count if count else 0.0
