"""A number that says what it is: value, range, unit and how it came about; and how it is written.

Every page, table and report takes the digits of a figure from here, so that one figure is the same
wherever it stands, and a difference is that of the two figures beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Kind = Literal["exact", "prior", "projected", "estimated", "measured"]

UNKNOWN = "n/a"
MEGA = 1e6
RELATIVE = "of variance"
"""Unit of a squared change of outputs, in parts of their variance."""
DECIMALS = {"%": 2, "pts": 2, "x": 2, "ms": 2, "MB": 3, "layers": 0}
"""The least decimals of a unit."""
FINE = ("ms", "MB")
"""Units in which a small figure has as many decimals more as three significant digits need."""
SIGNIFICANT = {"nats": 2, RELATIVE: 2, "": 4}
"""Significant digits of what may be of any size; a metric's own figure has no unit."""
FINEST = {"MB": 6}
"""The most decimals of a unit: a byte is the least."""


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


def digits(value: float, unit: str, most: int = 9) -> str:
    """`value` without its unit, in at most `most` decimals: bytes in MB = 10^6 bytes, no -0."""
    shown, unit = (value / MEGA, "MB") if unit == "bytes" else (value, unit)
    if unit in SIGNIFICANT:
        text = f"{shown:.{SIGNIFICANT[unit]}g}"
    else:
        decimals = DECIMALS.get(unit, 2)
        if unit in FINE and 0 < abs(shown) < 1:
            decimals = max(decimals, 2 - math.floor(math.log10(abs(shown))))
        text = f"{shown:.{min(decimals, most, FINEST.get(unit, most))}f}"
    return text.lstrip("-") if float(text) == 0 else text


def written(value: float | None, unit: str) -> str:
    """`value` with its unit, as "1.76 ms" or "0.97x"; "n/a" for None."""
    return UNKNOWN if value is None else with_unit(digits(value, unit), unit)


def with_unit(text: str, unit: str) -> str:
    """The digits `text` with their unit."""
    written = "MB" if unit == "bytes" else unit
    return f"{text}{unit}" if unit == "x" else f"{text} {written}".rstrip()


def written_change(before: float, after: float, unit: str) -> str:
    """What `after` is more than `before` as both are shown, with its sign, as "+0.12 ms (+7 %)";
    empty where they are shown alike.

    Shares in percent change in points. A percentage says something of sizes and times alone: one
    of points, percent or nats would be read as one more figure of that kind.
    """
    first, second = (Decimal(digits(value, unit)) for value in (before, after))
    if first == second:
        return ""
    most = max(-int(number.as_tuple().exponent) for number in (first, second))
    change = float(second - first) * (MEGA if unit == "bytes" else 1)
    text = f"{'+' if change > 0 else ''}{digits(change, unit, max(most, 0))}"
    said = with_unit(text, "pts" if unit == "%" else unit)
    share = 100 * float((second - first) / first) if first else 0.0
    if unit not in {"bytes", "ms"} or round(share) == 0:
        return said
    return f"{said} ({share:+.0f} %)"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if whole else "less than 1 s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes < 10 and rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
