"""How strategies are told apart: a shape, a dash and a colour by their place.

The shape is on the card, in the table's head and in every chart, so that colour is never alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from dashboard.display.theme import Mode

MOST = 4
"""Strategies that can be told apart side by side."""


@dataclass(frozen=True, slots=True)
class Mark:
    """`glyph` in text, `shape` in Vega, `symbol` and `dash` in the parallel coordinates; `light`
    and `dark` are its colours.
    """

    glyph: str
    shape: str
    symbol: str
    dash: str
    light: str
    dark: str

    def colour(self, mode: Mode) -> str:
        """Its colour in `mode`."""
        return self.dark if mode == "dark" else self.light


MARKS = (
    Mark("●", "circle", "circle", "solid", "#31333F", "#FAFAFA"),
    Mark("■", "square", "square", "dash", "#9B3B8C", "#D86CC0"),
    Mark("▲", "triangle-up", "triangle-up", "dot", "#00896B", "#2FA886"),
    Mark("◆", "diamond", "diamond", "dashdot", "#C77700", "#E3C04A"),
)
"""By place. None is a colour of a precision."""
