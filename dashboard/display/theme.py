"""Colours of precisions and levels, in light and dark, each with a second cue.

Colour is never alone: a precision also has a short label, a marker and, in the layer strip, a
height. The values are held to contrast and colour-blindness thresholds by a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import streamlit as st

from core.decide.policy.decision import PrecisionMap
from core.numerics import precision as registry

Mode = Literal["light", "dark"]


@dataclass(frozen=True, slots=True)
class Colour:
    """Fill of a precision, the text colour that is readable on it, and its badge colour."""

    fill: str
    text: str
    badge: str


@dataclass(frozen=True, slots=True)
class Theme:
    """Everything that charts need to know of the current mode.

    The first of `spare` keeps its distance from all of `precisions` for every eye and in grey;
    there is no fifth such colour, so from there on labels and markers tell precisions apart.
    """

    mode: Mode
    background: str
    text: str
    muted: str
    ghost: str
    precisions: dict[str, Colour]
    spare: tuple[Colour, ...]

    def of(self, precision: str) -> Colour:
        """The colour of `precision`; a spare one for a precision that has none of its own."""
        known = self.precisions.get(precision)
        if known is not None:
            return known
        strangers = [name for name in registry.names() if name not in self.precisions]
        place = strangers.index(precision) if precision in strangers else 0
        return self.spare[place % len(self.spare)]


LIGHT = Theme(
    mode="light",
    background="#FFFFFF",
    text="#31333F",
    muted="#5F6470",
    ghost="#E9EAEE",
    precisions={
        "FP32": Colour("#1C1C1C", "#FFFFFF", "gray"),
        "FP16": Colour("#DB6A00", "#000000", "orange"),
        "INT8": Colour("#0072B2", "#FFFFFF", "blue"),
    },
    spare=(Colour("#872D00", "#FFFFFF", "red"), Colour("#9B3B8C", "#FFFFFF", "violet")),
)
DARK = Theme(
    mode="dark",
    background="#171614",
    text="#FAFAFA",
    muted="#B4B5BA",
    ghost="#2E2D2B",
    precisions={
        "FP32": Colour("#E0E0E0", "#000000", "gray"),
        "FP16": Colour("#F0A030", "#000000", "orange"),
        "INT8": Colour("#2E8BC9", "#000000", "blue"),
    },
    spare=(Colour("#875A1E", "#FFFFFF", "red"), Colour("#C77DBB", "#000000", "violet")),
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
    return f":{LIGHT.of(precision).badge}-badge[{precision}]"


def badges(chosen: PrecisionMap) -> str:
    """How many layers of a map have each precision, as badges."""
    counts = [(name, chosen.count(name)) for name in chosen.precisions]
    drawn = (f":{LIGHT.of(name).badge}-badge[{count:,} {name}]" for name, count in counts if count)
    return " ".join(drawn) or "no layer computes"


def marker(precision: str) -> str:
    """The Vega shape of a precision."""
    return registry.get(precision).marker
