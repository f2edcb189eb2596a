"""Colours of precisions and pages, in light and dark, each with a second cue.

Colour is never alone: a precision also has a short label, a marker and, in the layer strip, a
height. What a precision looks like is `core.numerics.precision_marks`, which reports read too;
the values are held to contrast and colour-blindness thresholds by a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import streamlit as st

from core.decide.policy.decision import PrecisionMap
from core.numerics import precision_marks

Mode = Literal["light", "dark"]

VEGA_SHAPES = frozenset(
    ("circle", "square", "diamond", "triangle-up", "triangle-down", "triangle-right",
     "triangle-left")
)  # fmt: skip
"""Markers that Vega draws by name; of others it takes the outline."""


@dataclass(frozen=True, slots=True)
class Colour:
    """Fill of a precision, the text colour that is readable on it, and its badge colour."""

    fill: str
    text: str
    badge: str


@dataclass(frozen=True, slots=True)
class Theme:
    """Everything that charts need to know of the current mode. `accent` marks what is no
    precision.
    """

    mode: Mode
    background: str
    text: str
    muted: str
    ghost: str
    accent: str

    def of(self, precision: str) -> Colour:
        """The colour of `precision`; a spare one for a precision that has none of its own."""
        mark = precision_marks.of(precision)
        fill = mark.dark if self.mode == "dark" else mark.light
        return Colour(fill, precision_marks.readable_on(fill), mark.hue)


LIGHT = Theme(
    mode="light",
    background="#FFFFFF",
    text="#31333F",
    muted="#5F6470",
    ghost="#E9EAEE",
    accent="#9B3B8C",
)
DARK = Theme(
    mode="dark",
    background="#171614",
    text="#FAFAFA",
    muted="#B4B5BA",
    ghost="#2E2D2B",
    accent="#C77DBB",
)

NOTHING_MARKER = "cross"


def current() -> Theme:
    """The theme of the person's browser, light where it is not known."""
    return DARK if st.context.theme.type == "dark" else LIGHT


def by_mode(mode: Mode) -> Theme:
    """The theme called `mode`."""
    return DARK if mode == "dark" else LIGHT


def badge(precision: str) -> str:
    """A precision as a coloured Markdown badge."""
    return f":{precision_marks.of(precision).hue}-badge[{precision}]"


def badges(chosen: PrecisionMap) -> str:
    """How many layers of a map have each precision, as badges."""
    counts = [(name, chosen.count(name)) for name in chosen.precisions]
    drawn = (
        f":{precision_marks.of(name).hue}-badge[{count:,} {name}]"
        for name, count in counts
        if count
    )
    return " ".join(drawn) or "no layer computes"


def short(precision: str) -> str:
    """The label that is drawn beside or on the colour of a precision."""
    return precision_marks.of(precision).short


def marker(precision: str) -> str:
    """The Vega shape of a precision: a name that Vega knows, or an SVG path."""
    name = precision_marks.of(precision).marker
    if name in VEGA_SHAPES:
        return name
    corners = precision_marks.outlines()[name]
    return "M" + "L".join(f"{x:g},{y:g}" for x, y in corners) + "Z"
