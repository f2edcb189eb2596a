"""Which points are beaten, where less is better in both of two figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

Point = tuple[float | None, float | None]


def pareto_front(points: Sequence[Point]) -> tuple[int, ...]:
    """Indices of the points that no other one dominates, in the order given; O(n log n).

    Less is better in both figures. Equal points are all on the front; a point with an unknown
    figure (None or not finite) is never on it and beats no one.
    """
    known = sorted(
        (x, y, i)
        for i, (x, y) in enumerate(points)
        if x is not None and y is not None and math.isfinite(x) and math.isfinite(y)
    )
    found: list[int] = []
    lowest = math.inf
    for _, group in groupby(known, key=lambda point: point[0]):
        rows = list(group)
        best = rows[0][1]
        if best < lowest:
            found += [i for _, y, i in rows if y == best]
            lowest = best
    return tuple(sorted(found))


def dominates(winner: Point, loser: Point) -> bool:
    """Whether `winner` is no worse in both figures and better in one; False where one of the
    four is unknown.
    """
    x, y = winner
    u, v = loser
    if x is None or y is None or u is None or v is None:
        return False
    if not all(map(math.isfinite, (x, y, u, v))):
        return False
    return x <= u and y <= v and (x, y) != (u, v)
