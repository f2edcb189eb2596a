"""Figures as people read them: digits, units, and differences that agree with what is shown."""

from __future__ import annotations

import random
import re
from decimal import Decimal

import pytest

from core.quantity import DECIMALS, RELATIVE, SIGNIFICANT, digits, written, written_change

UNITS = (*DECIMALS, *SIGNIFICANT, "bytes")
PAIRS = 3_000


def _amount(drawn: random.Random, unit: str) -> float:
    if unit in {"bytes", "layers"}:
        return float(drawn.randint(0, 10 ** drawn.randint(0, 10)))
    value = drawn.random() * 10 ** drawn.randint(-9, 3)
    return -value if unit in {"%", "pts", "ms"} and drawn.random() < 0.3 else value


def _pairs(unit: str) -> list[tuple[float, float]]:
    """Figures of one unit, half of them close together, where rounding is apt to contradict."""
    drawn = random.Random(unit)
    found = []
    for place in range(PAIRS):
        before = _amount(drawn, unit)
        near = before * (1 + drawn.gauss(0, 0.01)) if place % 2 else _amount(drawn, unit)
        found.append((before, float(round(near)) if unit in {"bytes", "layers"} else near))
    return found


def _half_a_place(text: str) -> Decimal:
    """Half of what the last digit of `text` is worth."""
    return Decimal((0, (5,), int(Decimal(text).as_tuple().exponent) - 1))


@pytest.mark.parametrize("unit", UNITS)
def test_a_difference_is_that_of_the_figures_shown(unit: str) -> None:
    """Over many pairs: shown before plus shown change is shown after, to the digits of the
    change; its sign is theirs, and there is none exactly where both are shown alike.
    """
    for before, after in _pairs(unit):
        first, second = (Decimal(digits(value, unit)) for value in (before, after))
        said = written_change(before, after, unit)

        if first == second:
            assert said == "", (before, after)
            continue
        number = said.split(" ", 1)[0].rstrip("x")
        change = Decimal(number)
        assert (change > 0) == (second > first) == number.startswith("+"), (before, after, said)
        assert abs(first + change - second) <= _half_a_place(number), (before, after, said)
        share = re.search(r"\(([+-]\d+) %\)", said)
        if share is not None:
            assert abs(100 * (second - first) / first - Decimal(share[1])) <= Decimal("0.5")


@pytest.mark.parametrize("unit", UNITS)
def test_shown_figures_keep_their_order(unit: str) -> None:
    """What is less is never shown as more."""
    for before, after in _pairs(unit):
        first, second = (Decimal(digits(value, unit)) for value in (before, after))
        assert (first - second) * Decimal(before - after) >= 0, (before, after)


@pytest.mark.parametrize(("value", "unit", "text"), [
    (-0.0, "pts", "0.00 pts"), (-0.004, "pts", "0.00 pts"), (0.25, "pts", "0.25 pts"),
    (1.759, "ms", "1.76 ms"), (0.7583, "ms", "0.758 ms"), (0.0547, "ms", "0.0547 ms"),
    (9_252_527, "bytes", "9.253 MB"), (52_300, "bytes", "0.0523 MB"), (0, "bytes", "0.000 MB"),
    (0.97, "x", "0.97x"), (1.02e-5, "nats", "1e-05 nats"), (3.44e-6, RELATIVE, "3.4e-06 of variance"),
    (0.22264, "", "0.2226"), (3, "layers", "3 layers"), (None, "ms", "n/a"),
])  # fmt: skip
def test_digits_suit_the_unit(value: float | None, unit: str, text: str) -> None:
    """No minus zero, no digits lost where a figure is small, and unknown is n/a."""
    assert written(value, unit) == text


@pytest.mark.parametrize(("before", "after", "unit", "text"), [
    (-0.14, -0.06, "pts", "+0.08 pts"), (0.1120, 0.1208, "ms", "+0.009 ms (+8 %)"),
    (1.89, 0.758, "ms", "-1.13 ms (-60 %)"), (97.5, 97.4, "%", "-0.10 pts"),
    (5_254_000, 12_300, "bytes", "-5.242 MB (-100 %)"), (0.0, 1e6, "bytes", "+1.000 MB"),
    (1.001, 1.0029, "ms", ""),
])  # fmt: skip
def test_a_change_says_its_sign_and_what_it_is_of(
    before: float, after: float, unit: str, text: str
) -> None:
    """Sizes and times have a percentage, shares in percent change in points."""
    assert written_change(before, after, unit) == text
