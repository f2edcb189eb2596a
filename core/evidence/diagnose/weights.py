"""Weight error: what rounding a layer's stored weights loses, without any data."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.layers import Layer, LayerTable, TensorSpec
from core.numerics.precision import Precision
from core.numerics.rounding import round_float, round_table, round_weight
from core.numerics.storage import storage


def stored_in(spec: TensorSpec, weight: Tensor, precision: Precision) -> Tensor | None:
    """`weight` as `precision` stores it; None where it does not round such a tensor."""
    form = storage(spec, precision).form
    if form == "symmetric":
        return round_weight(weight, precision, spec.scale_axis)
    if form == "affine":
        return round_table(weight, precision)
    return round_float(weight, precision) if form == precision.kind == "float" else None


def layer_weight_sqnr_db(
    layer: Layer, tensors: Mapping[str, Tensor], precision: Precision
) -> float:
    """Signal to quantization noise of a layer's weights in dB; higher = less error.

    10 log10(sum w^2 / sum (w - q(w))^2) over all weights that `precision` rounds; infinity
    where it rounds none or loses nothing.
    """
    signal = noise = 0.0
    for spec in layer.tensors:
        weight = tensors[spec.name].detach()
        rounded = stored_in(spec, weight, precision)
        if rounded is None:
            continue
        signal += float(weight.double().square().sum())
        noise += float((weight.double() - rounded.double()).square().sum())
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


def _kurtosis(layer: Layer, tensors: Mapping[str, Tensor]) -> float:
    total, count = 0.0, 0
    for spec in layer.tensors:
        if not spec.on_grid:
            continue
        weight = tensors[spec.name].detach().double()
        axis = None if spec.kind == "table" else spec.scale_axis
        rows = weight.reshape(1, -1) if axis is None else weight.transpose(0, axis).flatten(1)
        centred = rows - rows.mean(dim=1, keepdim=True)
        variance = centred.square().mean(dim=1, keepdim=True)
        alive = (variance > 0).flatten()  # a channel of equal weights has no outlier
        total += float((centred[alive].square() / variance[alive]).square().sum())
        count += int(alive.sum()) * rows.shape[1]
        if not bool(torch.isfinite(weight).all()):
            return math.inf
    return total / count if count else 0.0
