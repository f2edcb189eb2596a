"""Time stamps of a person's file: readable, ascending, without missing bars."""

from array import array

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.errors import DataError

DAY = 86_400.0
LONGEST_HOLIDAY_DAYS = 5.0
# Number of digits of a present-day epoch time -> its unit.
EPOCH_UNITS = {10: 1.0, 13: 1e-3, 16: 1e-6, 19: 1e-9}


def parse_times(texts: list[str], lines: "array[int]", column: str) -> pd.DatetimeIndex:
    """Turn the time column into a UTC index.

    Args:
        texts: One cell per row: ISO 8601, or a whole number since 1970 in s, ms, us or ns.
        lines: Line in the file of each row.
        column: Name of the column, for messages.

    Raises:
        DataError: A cell is not a time, is not later than the one before, or bars are missing.
    """
    times = _epoch_times(texts) if texts[0].isascii() and texts[0].isdigit() else None
    if times is None:
        parsed = pd.to_datetime(pd.Series(texts), format="ISO8601", utc=True, errors="coerce")
        times = pd.DatetimeIndex(parsed, name="timestamp")
    bad = np.flatnonzero(times.isna())
    if len(bad):
        raise DataError(
            f"Row {lines[bad[0]]}, column {column}: {texts[bad[0]][:40]!r} is not a time.",
            "Write times like 2024-01-31 15:00, or as whole seconds since 1970.",
        )
    _check_order(times, texts, lines, column)
    return times


def _epoch_times(texts: list[str]) -> pd.DatetimeIndex | None:
    """Times since 1970 whose number of digits tells the unit; None for years and the like."""
    unit = EPOCH_UNITS.get(len(texts[0]))
    if unit is None:
        return None
    plain = [t if t.isascii() and t.isdigit() and len(t) <= 19 else "" for t in texts]
    seconds = np.array([float(t) * unit if t else np.nan for t in plain])
    # pandas keeps nanoseconds in 64 bits, which ends in the year 2262.
    seconds[seconds > 9.2e9] = np.nan
    return pd.DatetimeIndex(pd.to_datetime(seconds, unit="s", utc=True), name="timestamp")


def _check_order(
    times: pd.DatetimeIndex, texts: list[str], lines: "array[int]", column: str
) -> None:
    """Times must ascend in equal steps; daily series may skip weekends and holidays."""
    if len(times) < 2:
        return
    steps: NDArray[np.float64] = np.diff(times.as_unit("us").asi8) / 1e6
    for problem, at in (("the same time as", steps == 0.0), ("earlier than", steps < 0.0)):
        rows = np.flatnonzero(at)
        if len(rows):
            row = int(rows[0]) + 1
            raise DataError(
                f"Row {lines[row]}, column {column}: {texts[row][:40]} is {problem} the row "
                f"before ({texts[row - 1][:40]}).",
                "Sort the rows by time, oldest first, and keep each time once.",
            )
    usual = float(np.median(steps))
    allowed = 1.5 * usual
    if usual >= DAY:
        allowed = max(allowed, LONGEST_HOLIDAY_DAYS * DAY)
    gaps = np.flatnonzero(steps > allowed)
    if len(gaps):
        row = int(gaps[0]) + 1
        raise DataError(
            f"Row {lines[row]}, column {column}: {steps[row - 1] / usual - 1:.0f} bars are missing "
            f"between {texts[row - 1][:40]} and {texts[row][:40]} (one bar is {usual:g} s).",
            "Fill the missing bars, cut the file at the gap, or, where the market was simply "
            "closed, remove the time column.",
        )
