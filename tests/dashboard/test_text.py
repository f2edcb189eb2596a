"""Numbers as text: units, ranges, and "n/a" for what is unknown."""

from __future__ import annotations

import pytest

from core.quantity import Quantity, unknown
from dashboard.display.text import (
    UNKNOWN,
    format_bytes,
    format_number,
    format_quantity,
    format_range,
    with_range,
)


@pytest.mark.parametrize(("size", "text"), [
    (None, UNKNOWN), (0, "0 B"), (999, "999 B"), (1_000, "1.00 kB"), (9_252_527, "9.25 MB"),
    (2.5e9, "2.50 GB"), (-10_140_000, "-10.14 MB"),
])  # fmt: skip
def test_bytes_are_decimal(size: float | None, text: str) -> None:
    """MB is 10^6 bytes, and unknown is n/a."""
    assert format_bytes(size) == text


@pytest.mark.parametrize(("value", "unit", "text"), [
    (-0.0, "pts", "0.0 pts"), (-0.04, "pts", "0.0 pts"), (0.25, "pts", "0.2 pts"),
    (1.759, "ms", "1.76 ms"), (0.0547, "ms", "0.055 ms"), (0.97, "x", "0.97×"),
    (1.02e-5, "nats", "1e-05 nats"), (None, "ms", UNKNOWN),
])  # fmt: skip
def test_decimals_suit_the_unit(value: float | None, unit: str, text: str) -> None:
    """No minus zero, no more digits than a figure deserves."""
    assert format_number(value, unit) == text


def test_a_range_is_shown_where_there_is_one() -> None:
    """Value, then both ends with the unit once."""
    loss = Quantity(0.4, "pts", "projected", -0.1, 0.9)

    assert with_range(loss) == "0.4 pts (−0.1 to 0.9 pts)"
    assert with_range(Quantity(3, "layers", "exact")) == "3 layers"


def test_unknown_has_neither_value_nor_range() -> None:
    """Unknown is n/a and never 0."""
    assert format_quantity(unknown("pts", "projected")) == UNKNOWN
    assert format_range(unknown("pts", "projected")) == ""
