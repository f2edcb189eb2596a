"""Which layers round a tensor that another layer has rounded already.

A layer that rounds its output and one that rounds that tensor as its operand do the same thing
twice: rounding what lies on a grid changes nothing. Calibration saw one tensor at both places, so
that their ranges are equal to the last bit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from core.numerics.calibrate.calibration import OUTPUT, Calibration

Pairs = NDArray[np.int64]


def no_pairs() -> Pairs:
    """No layer shares a tensor with another, as far as is known."""
    return np.zeros((0, 2), np.int64)


def shared_rounding(ranges: Iterable[Calibration], index: Mapping[str, int]) -> Pairs:
    """Pairs [S, 2] of positions of layers: the first rounds as its output what the second rounds as
    an operand. `index` tells the position of a layer.
    """
    makers: dict[tuple[float, float], set[int]] = defaultdict(set)
    takers: dict[tuple[float, float], set[int]] = defaultdict(set)
    for seen in ranges:
        if seen.layer in index and seen.low < seen.high:
            side = makers if seen.operand == OUTPUT else takers
            side[seen.low, seen.high].add(index[seen.layer])
    found = sorted(
        {(a, b) for span, some in makers.items() for a in some for b in takers[span] if a != b}
    )
    return np.array(found, np.int64).reshape(-1, 2)
