"""Where the names of marks stand in a chart, so that none covers another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt
import numpy as np
from numpy.typing import NDArray

PLOT_PX = (250, 240)
"""Width and height of the plot where the page is narrow; in a wider one names lie further apart."""
SIZE_PX = 12
CHARACTER_PX, LINE_PX = 6.5, 14.0
"""Room that one character and one line of text take."""
BESIDE_PX = (-15, 17, -30, 32, -45, 47)
"""How far below its mark a name stands, the nearest first."""
ALIGNED: tuple[Literal["left", "center", "right"], ...] = ("left", "center", "right")
_STARTS = {"left": 0.0, "center": -0.5, "right": -1.0}


@dataclass(frozen=True, slots=True)
class Spot:
    """How a name lies to its mark: which of its ends is there, and how many pixels below."""

    align: Literal["left", "center", "right"]
    dy: int


def spots(
    x: Sequence[float], y: Sequence[float], names: Sequence[str], others: Sequence[float] = ()
) -> list[Spot]:
    """A spot for each mark at `x`, `y`. Text runs towards the middle of the chart and covers no name
    that stands already; empty names take no room. `others` are more values along x in the chart.
    """
    width, height = PLOT_PX
    across = _unit([*x, *others])[: len(x)]
    down = 1 - _unit(y)
    found = [Spot(ALIGNED[min(int(3 * place), 2)], BESIDE_PX[0]) for place in across]
    taken: list[tuple[float, float, float]] = []
    for i in (int(i) for i in np.argsort(across, kind="stable") if names[i]):
        long = CHARACTER_PX * len(names[i])
        left = width * across[i] + _STARTS[found[i].align] * long

        def overlap(dy: int, left: float = left, long: float = long, i: int = i) -> float:
            middle = height * down[i] + dy
            return sum(
                max(0.0, min(left + long, end) - max(left, start))
                for start, end, line in taken
                if abs(middle - line) < LINE_PX
            )

        dy = min(BESIDE_PX, key=overlap)  # the first of equals is the nearest
        found[i] = Spot(found[i].align, dy)
        taken.append((left, left + long, height * down[i] + dy))
    return found


def written(marks: alt.Chart, **more: Any) -> alt.Chart:
    """The names of `marks`, whose data have columns `label`, `align` and `dy`."""
    chart: alt.Chart = marks.mark_text(
        fontSize=SIZE_PX, align=alt.expr("datum.align"), dy=alt.expr("datum.dy"), **more
    )
    return chart.encode(text="label:N")


def _unit(values: Sequence[float]) -> NDArray[np.float64]:
    """Values between the least (0) and the greatest (1) of them."""
    found = np.asarray(values, dtype=np.float64)
    if not len(found):
        return found
    span = float(np.ptp(found))
    places: NDArray[np.float64] = (found - found.min()) / (span or 1.0)
    return places
