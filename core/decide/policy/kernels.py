"""Layers for which the target has nothing in integers: no kernel, and no weight to store.

An integer precision means for them what the reference does, in bytes, time and outputs, so no
strategy chooses it: they stay in the reference (or where a person allows no reference, in the widest
float that is allowed). A person's own word (a pin, an override, a map from
a file) is kept and said to have no effect. Where a group goes to integers, such a layer of it stays
behind and holds nobody back.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.layers import LayerTable
from core.numerics import precision as registry

NO_KERNEL = "no kernel of the target computes it in integers and it has no weight to store in them"


def without_kernel(layers: LayerTable, precisions: tuple[str, ...]) -> NDArray[np.bool_]:
    """[P, L]: True where a precision is an integer one and the layer has none."""
    integer = np.array([registry.get(name).kind == "integer" for name in precisions], np.bool_)
    return np.logical_and.outer(integer, layers.in_float)


def stay_behind(
    codes: NDArray[np.int8], lacking: NDArray[np.bool_], home: NDArray[np.int8]
) -> NDArray[np.bool_]:
    """Put codes [..., L] of pairs that are `lacking` where each layer waits, `home` (L,). Mutates
    `codes`; returns where, [..., L].
    """
    found: NDArray[np.bool_] = lacking[codes, np.arange(codes.shape[-1])] & (codes > 0)
    np.copyto(codes, home, where=found)
    return found


def leading(group: tuple[int, ...], layers: LayerTable) -> list[int]:
    """The layers of a group that decide its precision: those that integers mean something for, or
    where there are none all that compute.
    """
    members = [i for i in group if layers.computes[i]]
    return [i for i in members if not layers.in_float[i]] or members
