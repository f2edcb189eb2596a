"""Weight error: what rounding a layer's stored weights loses, without any data."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.evidence.rounding import round_float, round_table, round_weight
from core.layers import Layer, LayerTable
from core.precision import Precision


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
        if precision.kind == "float":
            rounded = round_float(weight, precision)
        elif spec.kind == "weight":
            rounded = round_weight(weight, precision, spec.scale_axis)
        elif spec.kind == "table":
            rounded = round_table(weight, precision)
        else:
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
