"""Bytes of a map's tensors, as `core.numerics.storage` keeps each: exact, equal to those of a file.

A layer whose products are of integers also holds a float32 scale and a zero point per rounded
activation; one without a kernel keeps its tensors in float32 and has those alone besides. Floats over
scales have a float32 scale for each activation that a product takes in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.layers import Layer, LayerTable
from core.numerics import precision as registry
from core.numerics.precision import Precision
from core.numerics.states import kept_as
from core.numerics.storage import GRID_BYTES, SCALE_BYTES, storage


def layer_bytes(layer: Layer, precision: Precision) -> int:
    """Stored bytes of a layer in `precision`."""
    precision = kept_as(layer, precision)
    stored = sum(storage(spec, precision).bytes for spec in layer.tensors)
    if precision.is_scaled:
        return stored + layer.product_scales * SCALE_BYTES
    return stored + (layer.activation_scales * GRID_BYTES if precision.is_calibrated else 0)


def glue_bytes(layers: LayerTable) -> int:
    """Bytes of tensors that belong to no layer; they stay as they are."""
    reference = registry.get(registry.REFERENCE)
    return sum(storage(spec, reference).bytes for spec in layers.glue_tensors)


def fixed_bytes(layers: LayerTable) -> int | None:
    """Bytes that every map's file holds whatever its layers' precisions; None (unknown) for an
    analysis of a version that did not count all of them.
    """
    return glue_bytes(layers) if layers.holds_all else None


def size_table(layers: LayerTable, precisions: Sequence[Precision]) -> NDArray[np.int64]:
    """`layer_bytes` for every precision and layer, shape (P, L)."""
    rows = [[layer_bytes(layer, p) for layer in layers] for p in precisions]
    return np.array(rows, dtype=np.int64).reshape(len(precisions), len(layers))
