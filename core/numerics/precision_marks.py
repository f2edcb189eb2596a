"""How precisions are drawn: read from `precision_marks.toml` by pages, reports and exported files.

Colour is never alone: a precision also has a marker and a short label. Nothing here asks what a
precision computes, so that any name can be drawn.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any
from zlib import crc32

LONGEST_SHORT = 4
"""Characters of a short label: more do not fit into a bar of the layer strip."""
REACH = 1.3
"""How far a corner of an outline lies from its middle at most, along either axis."""

Outline = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class PrecisionMark:
    """Colours on `light` and `dark` pages as #RRGGBB, the nearest named `hue`, the `marker` of
    charts, and the `short` label drawn beside or on the colour.
    """

    light: str
    dark: str
    hue: str
    marker: str
    short: str


@cache
def _data() -> dict[str, Any]:
    text = files("core.numerics").joinpath("precision_marks.toml").read_text("utf-8")
    return tomllib.loads(text)


@cache
def marks() -> dict[str, PrecisionMark]:
    """Every precision that has a mark of its own, from the widest to the narrowest."""
    return {name: PrecisionMark(**row) for name, row in _data()["precisions"].items()}


def of(name: str) -> PrecisionMark:
    """The mark of the precision called `name`; what follows a space, as in "FP8 (E4M3)", only
    explains it.

    A name without a mark of its own gets a spare one that depends on its letters alone, so that
    it looks the same on every page and in every process.
    """
    return marks().get(name) or marks().get(name.partition(" ")[0]) or _spare(name)


def _spare(name: str) -> PrecisionMark:
    spares = _data()["spares"]
    # Python's own hash of text differs from process to process.
    row = spares[crc32(name.encode()) % len(spares)]
    return PrecisionMark(**row, short=name[:LONGEST_SHORT])


@cache
def outlines() -> dict[str, Outline]:
    """Marker -> its corners in turn, x to the right and y down; none for a circle of radius 1."""
    return {
        marker: tuple((float(x), float(y)) for x, y in corners)
        for marker, corners in _data()["outlines"].items()
    }


def readable_on(fill: str) -> str:
    """Black or white, whichever has more contrast on `fill`; one of them has 4.5:1 on any colour."""
    # Contrasts with white and black (WCAG 2) are 1.05 / (l + 0.05) and (l + 0.05) / 0.05.
    return "#FFFFFF" if (luminance(fill) + 0.05) ** 2 < 1.05 * 0.05 else "#000000"


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2) of #RRGGBB, 0 for black to 1 for white."""
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
