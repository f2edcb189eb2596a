"""A map with the running sums that its neighbours are priced from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Codes = NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Place:
    """A map with its running sums. `sums` is [1, KA] for added changes, [2, KA] for squared
    rises and falls; `chosen` and `squared` [P] are shares of energy for the pair share.
    """

    codes: Codes
    sums: Doubles
    chosen: Doubles
    squared: Doubles
    cost: float
