"""Figures as text: units, ranges, and "n/a" for what is unknown."""

from __future__ import annotations

import pytest

from core.quantity import UNKNOWN, Quantity, unknown
from dashboard.display.text import file_size, format_quantity, format_range, with_range


@pytest.mark.parametrize(("size", "text"), [
    (0, "0 B"), (999, "999 B"), (1_000, "1.00 kB"), (9_252_527, "9.25 MB"), (2.5e9, "2.50 GB"),
])  # fmt: skip
def test_bytes_of_a_file_are_decimal(size: float, text: str) -> None:
    """MB is 10^6 bytes."""
    assert file_size(size) == text


def test_a_range_is_shown_where_there_is_one() -> None:
    """Value, then both ends with the unit once."""
    loss = Quantity(0.4, "pts", "projected", -0.1, 0.9)

    assert with_range(loss) == "0.40 pts (−0.10 to 0.90 pts)"
    assert with_range(Quantity(3, "layers", "exact")) == "3 layers"


def test_unknown_has_neither_value_nor_range() -> None:
    """Unknown is n/a and never 0."""
    assert format_quantity(unknown("pts", "projected")) == UNKNOWN
    assert format_range(unknown("pts", "projected")) == ""
