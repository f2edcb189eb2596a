"""One control of a policy: key in the URL, default, and how a link's text is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isfinite

Value = str | float | int
Ends = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Control:
    """One control. `read` turns a link's text into a value or raises `ValueError`; a number beyond
    the ends becomes the nearest end.
    """

    key: str
    default: Value
    read: Callable[[str], Value]


@dataclass(frozen=True, slots=True)
class Clamped:
    """A number that was asked for and lay beyond the ends of its control, and what was set."""

    asked: float
    value: float

    def in_words(self) -> str:
        """As "13 was asked for; the least here is 42.73, which is set."."""
        end = "least" if self.asked < self.value else "most"
        return f"{self.asked:g} was asked for; the {end} here is {self.value:g}, which is set."


def choice(options: Iterable[str]) -> Callable[[str], str]:
    """A reader of one of `options`."""
    allowed = tuple(options)

    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError(text)
        return text

    return read


def number(least: float, most: float) -> Callable[[str], float]:
    """A reader of a number, which becomes the nearest one between `least` and `most`."""

    def read(text: str) -> float:
        value = float(text)
        if not isfinite(value):
            raise ValueError(text)
        return float(min(max(value, least), most))

    return read
