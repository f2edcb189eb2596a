"""Bytes of a map's tensors: exact, as `core.export.map.tensors` writes them.

Integers: one value per weight, a float32 scale and a zero point per output channel (per tensor
for an embedding table), an int32 per bias, and a float32 scale with a zero point per rounded
activation. A layer without an integer kernel keeps float32 tensors and adds only the scales.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from core.layers import Layer, LayerTable, TensorSpec
from core.numerics import precision as registry
from core.numerics.precision import Precision

SCALE_BYTES = 4  # float32
ZERO_POINT_BYTES = 1
BIAS_BYTES = 4  # int32
FLOAT_BYTES = 4


def tensor_bytes(tensor: TensorSpec, precision: Precision) -> int:
    """Stored bytes of one tensor with its scales and zero points."""
    if precision.kind == "float":
        return tensor.size * precision.bits // 8
    if tensor.kind == "bias":
        return tensor.size * BIAS_BYTES
    if tensor.kind == "float":
        return tensor.size * FLOAT_BYTES
    packed = math.ceil(tensor.size * precision.bits / 8)
    return packed + tensor.channels * (SCALE_BYTES + ZERO_POINT_BYTES)


def layer_bytes(layer: Layer, precision: Precision) -> int:
    """Stored bytes of a layer in `precision`."""
    stored = sum(tensor_bytes(tensor, precision) for tensor in layer.tensors)
    if precision.kind == "integer":
        stored += layer.activation_scales * (SCALE_BYTES + ZERO_POINT_BYTES)
    return stored


def glue_bytes(layers: LayerTable) -> int:
    """Bytes of tensors that belong to no layer; they stay in the reference precision."""
    return sum(tensor_bytes(t, registry.get(registry.REFERENCE)) for t in layers.glue_tensors)


def size_table(layers: LayerTable, precisions: tuple[str, ...]) -> NDArray[np.int64]:
    """`layer_bytes` for every precision and layer, shape (P, L)."""
    chosen = [registry.get(name) for name in precisions]
    rows = [[layer_bytes(layer, p) for layer in layers] for p in chosen]
    return np.array(rows, dtype=np.int64).reshape(len(chosen), len(layers))
