"""One control of a policy: key in the URL, default, and how a link's text is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isfinite

Value = str | float | int


@dataclass(frozen=True, slots=True)
class Control:
    """One control. `read` turns a link's text into a value or raises `ValueError`."""

    key: str
    default: Value
    read: Callable[[str], Value]


def choice(options: Iterable[str]) -> Callable[[str], str]:
    """A reader of one of `options`."""
    allowed = tuple(options)

    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError(text)
        return text

    return read


def number(least: float, most: float) -> Callable[[str], float]:
    """A reader of a number between `least` and `most`."""

    def read(text: str) -> float:
        value = float(text)
        if not isfinite(value) or not least <= value <= most:
            raise ValueError(text)
        return value

    return read
