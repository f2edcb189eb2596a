"""Colours stay apart: on their background, from each other, for colour-blind eyes, in grey."""

from __future__ import annotations

import re
import tomllib
from itertools import combinations
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from numpy.typing import NDArray

from core.numerics import precision as registry
from core.numerics import precision_marks
from dashboard.charts import layers
from dashboard.display import theme
from dashboard.display.strategy_marks import MARKS
from dashboard.display.theme import DARK, LIGHT, Theme
from tests.conftest import REPOSITORY
from tests.zoo.precisions import registered

Rgb = NDArray[np.float64]

# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
MACHADO = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                   [0.0193339, 0.1191920, 0.9503041]])  # fmt: skip
WHITE = np.array([0.95047, 1.0, 1.08883])
LUMA = np.array([0.2126, 0.7152, 0.0722])


def linear(colour: str) -> Rgb:
    """Linear RGB of #RRGGBB."""
    value = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    """WCAG contrast ratio."""
    light, dark = sorted((float(linear(c) @ LUMA) for c in (a, b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def lab(rgb: Rgb) -> Rgb:
    """CIELAB (D65) of linear RGB."""
    ratio = TO_XYZ @ np.clip(rgb, 0, 1) / WHITE
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def delta_e(first: Rgb, second: Rgb) -> float:
    """CIEDE2000 colour difference (Sharma, Wu and Dalal 2005)."""
    (l1, a1, b1), (l2, a2, b2) = first, second
    c_mean = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    g = 0.5 * (1 - np.sqrt(c_mean**7 / (c_mean**7 + 25.0**7)))
    a1, a2 = a1 * (1 + g), a2 * (1 + g)
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, a1)) % 360, np.degrees(np.arctan2(b2, a2)) % 360
    dh = (h2 - h1 + 180) % 360 - 180 if c1 * c2 else 0.0
    d_l, d_c, d_h = l2 - l1, c2 - c1, 2 * np.sqrt(c1 * c2) * np.sin(np.radians(dh) / 2)
    l_m, c_m = (l1 + l2) / 2, (c1 + c2) / 2
    h_m = (h1 + dh / 2) % 360 if c1 * c2 else h1 + h2
    t = (1 - 0.17 * np.cos(np.radians(h_m - 30)) + 0.24 * np.cos(np.radians(2 * h_m))
         + 0.32 * np.cos(np.radians(3 * h_m + 6)) - 0.20 * np.cos(np.radians(4 * h_m - 63)))  # fmt: skip
    s_l = 1 + 0.015 * (l_m - 50) ** 2 / np.sqrt(20 + (l_m - 50) ** 2)
    s_c, s_h = 1 + 0.045 * c_m, 1 + 0.015 * c_m * t
    turn = np.sin(np.radians(60 * np.exp(-(((h_m - 275) / 25) ** 2))))
    r_t = -2 * np.sqrt(c_m**7 / (c_m**7 + 25.0**7)) * turn
    x, y, z = d_l / s_l, d_c / s_c, d_h / s_h
    return float(np.sqrt(x * x + y * y + z * z + r_t * y * z))


NAMES = tuple(precision_marks.marks())
COMMON = ("FP32", "FP16", "BF16", "INT8")
"""What most analyses hold: four colours can be further apart than ten."""
BADGES = {"blue", "green", "orange", "red", "violet", "gray", "yellow"}
"""Colours that Streamlit's Markdown has badges of."""
EACH = [
    pytest.param(look, name, id=f"{look.mode}-{name}") for look in (LIGHT, DARK) for name in NAMES
]


def pairs(names: tuple[str, ...]) -> list[Any]:
    """Every two of `names` in every look."""
    return [
        pytest.param(look, a, b, id=f"{look.mode}-{a}-{b}")
        for look in (LIGHT, DARK)
        for a, b in combinations(names, 2)
    ]


def least_distance(first: str, second: str) -> float:
    """ΔE2000 of two colours as those eyes see them that tell them apart worst."""
    colours = linear(first), linear(second)
    seen = [[lab(np.array(m) @ c) for c in colours] for m in MACHADO.values()]
    return min(delta_e(*both) for both in ([lab(c) for c in colours], *seen))


def test_the_difference_formula_is_right() -> None:
    """CIEDE2000 gives the published values of Sharma's test pairs."""
    pairs = [((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
             ((50, 2.5, 0), (73, 25, -18), 27.1492),
             ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082)]  # fmt: skip
    for first, second, expected in pairs:
        found = delta_e(np.array(first, float), np.array(second, float))
        assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("look", "name"), EACH)
def test_graphics_stand_out_from_the_background(look: Theme, name: str) -> None:
    """Every fill has 3:1 against the page, and its label 4.5:1 against the fill."""
    colour = look.of(name)

    assert contrast(colour.fill, look.background) >= 3
    assert contrast(colour.text, colour.fill) >= 4.5


@pytest.mark.parametrize(("look", "a", "b"), pairs(NAMES))
def test_fills_differ_for_every_eye(look: Theme, a: str, b: str) -> None:
    """ΔE2000 is 13 or more, also in a simulation of the three colour blindnesses."""
    assert least_distance(look.of(a).fill, look.of(b).fill) >= 13


@pytest.mark.parametrize(("look", "a", "b"), pairs(COMMON))
def test_common_precisions_differ_more(look: Theme, a: str, b: str) -> None:
    """ΔE2000 of the four common precisions is 20 or more for every eye, and 10 or more in grey."""
    greys = [lab(np.full(3, linear(look.of(name).fill) @ LUMA)) for name in (a, b)]

    assert least_distance(look.of(a).fill, look.of(b).fill) >= 20
    assert delta_e(*greys) >= 10


@pytest.mark.parametrize("look", [LIGHT, DARK], ids=lambda look: look.mode)
def test_quiet_text_can_be_read(look: Theme) -> None:
    """Text and muted text have 4.5:1 against the page."""
    assert min(contrast(look.text, look.background), contrast(look.muted, look.background)) >= 4.5


def test_every_precision_has_a_second_cue() -> None:
    """All labels differ and all markers differ, those of spare marks and of idle layers included."""
    known = precision_marks.marks().values()
    spare = {precision_marks.of(name).marker for name in ("new", "other", "third", "fourth")}
    shapes = [theme.marker(name) for name in NAMES]

    assert len({mark.short for mark in known}) == len(known)
    assert len({mark.marker for mark in known}) == len(set(shapes)) == len(known)
    assert not spare & {mark.marker for mark in known}
    assert theme.NOTHING_MARKER not in shapes


@pytest.mark.parametrize("marker", precision_marks.outlines())
def test_a_marker_is_known_to_both_chart_libraries(marker: str) -> None:
    """Plotly takes every marker by its name; Vega takes it by name or as a closed path."""
    go.scatter.Marker(symbol=marker)  # raises for an unknown symbol

    if marker not in theme.VEGA_SHAPES:
        assert len(precision_marks.outlines()[marker]) > 2
    for name, mark in precision_marks.marks().items():
        if mark.marker == marker and marker not in theme.VEGA_SHAPES:
            assert re.fullmatch(r"M[-\d.,]+(L[-\d.,]+)+Z", theme.marker(name))


def test_badges_are_of_colours_that_pages_have() -> None:
    """Every hue is one of Streamlit's badge colours, and the three that the configuration sets are
    those of the palette.
    """
    shown = tomllib.loads((REPOSITORY / ".streamlit" / "config.toml").read_text("utf-8"))["theme"]

    assert {LIGHT.of(name).badge for name in (*NAMES, "new", "other")} <= BADGES
    for look in (LIGHT, DARK):
        colours = shown[look.mode]
        assert [colours[f"{hue}Color"] for hue in ("gray", "orange", "blue")] == [
            look.of(name).fill for name in ("FP32", "FP16", "INT8")
        ]


def test_nothing_else_has_the_colour_of_a_precision() -> None:
    """Strategies, and marks of what is no precision, are drawn in colours that no precision has."""
    for look in (LIGHT, DARK):
        fills = {look.of(name).fill for name in NAMES}
        assert not fills & {look.accent, *(mark.colour(look.mode) for mark in MARKS)}


def test_every_registered_precision_has_a_mark_of_its_own() -> None:
    """No precision of the registry is drawn with a spare mark."""
    assert set(registry.names()) <= set(NAMES)


def test_a_new_precision_gets_a_colour_of_its_own() -> None:
    """A precision that the palette does not know is drawn in a spare colour, not in a known one."""
    fresh = registry.integers("INT4", 4)
    with registered(fresh):
        for look in (LIGHT, DARK):
            colour = look.of("INT4")
            assert colour.fill not in {look.of(name).fill for name in NAMES}
            assert contrast(colour.fill, look.background) >= 3
            assert contrast(colour.text, colour.fill) >= 4.5
        assert theme.short("INT4") == "INT4"


@pytest.mark.parametrize(("count", "columns"), [(3, {}), (6, {}), (7, {4}), (10, {5})])
def test_a_long_legend_takes_two_rows(count: int, columns: set[int]) -> None:
    """Up to six precisions stand in one row above a chart, more in two rows of as many."""
    made = layers.legend(NAMES[:count], offset=2).to_dict()

    assert {made[key] for key in ("columns",) if key in made} == set(columns)
