"""A number that says what it is: value, range, unit and how it came about."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["exact", "prior", "projected", "estimated", "measured"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """One figure. `value` None means unknown, which is shown as "n/a" and never as 0.

    `kind`: *exact* was counted, *prior* is a rule's score, *projected* comes from a model of
    measurements, *estimated* from a cost model, *measured* from running the thing. `low` and
    `high` bound a 90 % range where the figure has one.
    """

    value: float | None
    unit: str
    kind: Kind
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):
            given = getattr(self, name)
            if given is not None and not math.isfinite(given):
                object.__setattr__(self, name, None)  # JSON knows no NaN or infinity


def unknown(unit: str, kind: Kind) -> Quantity:
    """A figure that cannot be given."""
    return Quantity(None, unit, kind)
