"""What was not measured yet is never taken for harmless: such a layer stays in the reference.

While a measurement goes on, some pairs of layer and precision are unknown. A strategy does not
choose them; a person's own word (a pin, an override, one precision for every layer) is kept, and
nothing is projected for a map that has such a pair.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.evidence.evidence import Evidence
from core.layers import LayerTable

Unmeasured = NDArray[np.bool_]
"""[P, L], the reference first: True where a layer was not measured in a precision."""


def unmeasured(layers: LayerTable, evidence: Evidence | None) -> Unmeasured | None:
    """Pairs that are unknown; None where nothing is missing, or nothing was measured at all."""
    if evidence is None or evidence.measured is None:
        return None
    reference = np.zeros((1, len(layers)), dtype=np.bool_)
    return np.concatenate([reference, ~evidence.measured & layers.computes])


def held_back(codes: NDArray[np.int8], unknown: Unmeasured) -> NDArray[np.bool_]:
    """Where `codes` [..., L] name an unknown pair; -1 names none."""
    found: NDArray[np.bool_] = unknown[codes, np.arange(codes.shape[-1])] & (codes > 0)
    return found


def hold_back(
    codes: NDArray[np.int8],
    layers: LayerTable,
    unknown: Unmeasured | None,
    groups: Iterable[tuple[int, ...]],
    home: NDArray[np.int8],
) -> Any:
    """Put unknown pairs of `codes` [..., L] back where their layers wait, `home` (L,), with the layers
    that have to share their precision (`groups`). Mutates `codes`; returns where, [..., L], or False
    for nowhere.
    """
    if unknown is None:
        return False
    held = held_back(codes, unknown)
    for group in groups:
        members = [i for i in group if layers.computes[i]]
        held[..., members] |= held[..., members].any(axis=-1, keepdims=True)
    np.copyto(codes, home, where=held)
    return held
