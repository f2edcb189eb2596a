"""The mark: three bars of 32, 16 and 8 bits. Drawn here, so that nothing is fetched."""

from __future__ import annotations

from dashboard.display.theme import LIGHT, Theme

BARS = (("FP32", 2, 28), ("FP16", 12, 14), ("INT8", 22, 7))
BASE = 30
NAME_PX = 122
"""Width of the name, whatever the font that the browser finds."""


def _bars(look: Theme) -> str:
    return "".join(
        f'<rect x="{x}" y="{BASE - height}" width="8" height="{height}" rx="1.5" '
        f'fill="{look.of(name).fill}"/>'
        for name, x, height in BARS
    )


def icon() -> str:
    """The mark alone; a grey that shows on light and dark tabs stands in for FP32."""
    bars = _bars(LIGHT).replace(LIGHT.of("FP32").fill, "#808080")
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{bars}</svg>'


def logo(look: Theme) -> str:
    """The mark with the name beside it."""
    name = (
        f'<text x="40" y="26" font-family="Helvetica, Arial, sans-serif" font-size="22" '
        f'font-weight="600" textLength="{NAME_PX}" lengthAdjust="spacingAndGlyphs" '
        f'fill="{look.text}">Quantscape</text>'
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="170" height="32" viewBox="0 0 170 32">'
        f"{_bars(look)}{name}</svg>"
    )
