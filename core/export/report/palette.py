"""The marks of precisions as styles of the HTML report: a rule for each precision that it names."""

from __future__ import annotations

from collections.abc import Iterable

from core.numerics import precision_marks
from core.numerics.precision_marks import REACH, Outline


def css(precisions: Iterable[str]) -> str:
    """`--fill`, `--on` (text on it) and `--shape` of what bears `data-precision`, in light, on
    paper and in dark.
    """
    names = tuple(precisions)
    given = [(name, precision_marks.of(name)) for name in names]
    light = "\n".join(
        f"{_selector(name)} {{ {_colours(mark.light)} "
        f"--shape: {_shape(precision_marks.outlines()[mark.marker])}; }}"
        for name, mark in given
    )
    dark = "\n".join(f"  {_selector(name)} {{ {_colours(mark.dark)} }}" for name, mark in given)
    return f"{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n"


def _selector(precision: str) -> str:
    # A name may hold spaces and brackets, which a class could not; quotes it may not end.
    quoted = precision.replace("\\", r"\5c ").replace('"', r"\22 ")
    return f'[data-precision="{quoted}"]'


def _colours(fill: str) -> str:
    return f"--fill: {fill}; --on: {precision_marks.readable_on(fill)};"


def _shape(corners: Outline) -> str:
    if not corners:
        return "circle(39%)"
    points = (f"{_share(x)} {_share(y)}" for x, y in corners)
    return f"polygon({', '.join(points)})"


def _share(at: float) -> str:
    return f"{50 + 50 * at / REACH:.3g}%"
