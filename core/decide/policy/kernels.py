"""Layers for which the target has nothing in a precision: no kernel, and no weight to store.

Such a precision means for them what the reference does, in bytes, time and outputs, so no
strategy chooses it: they stay in the reference (or where a person allows no reference, in the widest
precision that is allowed and serves them). A person's own word (a pin, an override, a map from a
file) is kept and said to have no effect. Where a group goes to integers, such a layer of it stays
behind and holds nobody back.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.layers import LayerTable
from core.numerics import precision as registry
from core.numerics.states import lacking

NO_KERNEL = "no kernel of the target computes it so, and it has no weight to store so"


def without_kernel(layers: LayerTable, precisions: tuple[str, ...]) -> NDArray[np.bool_]:
    """[P, L]: True where a precision means for a layer what the reference does."""
    return lacking(layers, map(registry.get, precisions))


def stay_behind(
    codes: NDArray[np.int8], lacks: NDArray[np.bool_], home: NDArray[np.int8]
) -> NDArray[np.bool_]:
    """Put codes [..., L] of pairs that are lacking where each layer waits, `home` (L,). Mutates
    `codes`; returns where, [..., L].
    """
    found: NDArray[np.bool_] = lacks[codes, np.arange(codes.shape[-1])] & (codes > 0)
    np.copyto(codes, home, where=found)
    return found


def leading(group: tuple[int, ...], layers: LayerTable) -> list[int]:
    """The layers of a group that decide its precision: those that INT8 means something for, or
    where there are none all that compute.
    """
    members = [i for i in group if layers.computes[i]]
    return [i for i in members if not layers.in_float[i]] or members
