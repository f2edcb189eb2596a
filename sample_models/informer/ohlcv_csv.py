"""Read a person's own OHLCV file, or say exactly which cell is in the way."""

import csv
import math
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd

from core.errors import DataError
from sample_models.informer.features import WARM_UP
from sample_models.informer.timestamps import parse_times
from sample_models.informer.windows import GAP, HORIZON, SEQ_LEN, split_rows

MAX_FILE_BYTES = 200_000_000
COLUMNS: tuple[str, ...] = ("open", "high", "low", "close", "volume")
PRICES: tuple[str, ...] = COLUMNS[:4]
TIME_NAMES: tuple[str, ...] = ("timestamp", "date", "time")
EXPECTED = "open, high, low, close, volume and, if you like, timestamp"
MAX_PRICE = 1e15
MIN_PRICE = 1e-12
SHOWN_CHARACTERS = 40
CSV_SHARES = (0.2, 0.4, 0.4)
"""Of the rows: calibration, selection, holdout."""
MIN_CSV_WINDOWS = 64
"""Fewest windows per split: below this, calibration and accuracy say very little."""

# `float` also accepts "1_000", "nan" and digits of other scripts; a price file means none of them.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)


def minimum_rows() -> int:
    """Fewest rows of a CSV whose every split holds `MIN_CSV_WINDOWS` windows."""
    bars = WARM_UP + SEQ_LEN + HORIZON + MIN_CSV_WINDOWS - 1
    rows = int(max(bars / CSV_SHARES[0], (bars + GAP) / min(CSV_SHARES[1:])))
    while min(len(range(*s.indices(rows))) for s in split_rows(rows, CSV_SHARES)) < bars:
        rows += 1
    return rows


def check_enough(rows: int, name: str) -> None:
    """Raise `DataError` where a file called `name` has too few rows for three splits."""
    needed = minimum_rows()
    if rows < needed:
        raise DataError(
            f"The file {name} has {rows:,} row{'' if rows == 1 else 's'} of bars; "
            f"three splits of windows need at least {needed:,}.",
            "Add older bars, or use shorter ones.",
        )


def read_ohlcv_csv(path: Path) -> pd.DataFrame:
    """Read bars from a comma-separated UTF-8 file with a header line.

    Column names are matched without regard to case; other columns are ignored. Rows are named by
    their line in the file, the header being line 1.

    Args:
        path: The file, at most 200 MB.

    Returns:
        Float64 columns open, high, low, close, volume in time order; indexed by UTC time where
        the file has a timestamp column, else by position.

    Raises:
        DataError: The file cannot be used; the message names row, column and what to do.
    """
    if not path.is_file():
        raise DataError(f"The CSV file {path} does not exist.", "Check the path.")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise DataError(
            f"The CSV file {path.name} has {size / 1e6:.0f} MB; "
            f"at most {MAX_FILE_BYTES / 1e6:.0f} MB are read.",
            "Keep the most recent rows, or use longer bars.",
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _read_rows(file, path.name)
    except UnicodeDecodeError as error:
        raise DataError(
            f"The file {path.name} is not text in UTF-8 (byte {error.start}).",
            "Save the table as CSV with UTF-8 encoding.",
        ) from error
    except csv.Error as error:
        raise DataError(
            f"The file {path.name} is not a readable CSV table ({error}).",
            "Save the table as plain comma-separated text.",
        ) from error
    except OSError as error:
        raise DataError(
            f"The file {path.name} cannot be read ({error.strerror}).", "Check its permissions."
        ) from error


def _read_rows(file: TextIO, name: str) -> pd.DataFrame:
    """Parse header and rows into columns, then check what only whole rows and columns show."""
    rows = _filled_rows(file)
    header = next(rows, None)
    if header is None:
        raise DataError(f"The file {name} is empty.", f"It needs a header with {EXPECTED}.")
    names = header[1]
    places, time_place = _find_columns([cell.strip().lower() for cell in names])

    values = [array("d") for _ in COLUMNS]
    times: list[str] = []
    lines = array("q")
    for line, row in rows:
        if len(row) != len(names):
            raise DataError(
                f"Row {line} has {len(row)} cells, but the header has {len(names)}.",
                "Make every row as long as the header; write decimals with a point.",
            )
        for column, place, cells in zip(COLUMNS, places, values, strict=True):
            cells.append(_number(row[place], line, column))
        _check_bar([cells[-1] for cells in values], line)
        if time_place is not None:
            times.append(row[time_place].strip())
        lines.append(line)
    if not lines:
        raise DataError(f"The file {name} has a header but no rows.", "Add one row per bar.")

    frame = pd.DataFrame(
        {c: np.array(v, dtype=np.float64) for c, v in zip(COLUMNS, values, strict=True)}
    )
    if time_place is not None:
        frame.index = parse_times(times, lines, names[time_place].strip())
    return frame


def _filled_rows(file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank lines, each with the line of the file on which it ends."""
    reader = csv.reader(file)
    for row in reader:
        if len(row) > 1 or (row and row[0].strip()):
            yield reader.line_num, row


def _find_columns(names: list[str]) -> tuple[list[int], int | None]:
    """Positions of the five columns, and of the timestamp if there is one."""
    for name in (*COLUMNS, *TIME_NAMES):
        if names.count(name) > 1:
            raise DataError(
                f"The header (row 1) has the column {name} {names.count(name)} times.",
                "Keep one of them.",
            )
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        found = ", ".join(_shown(n) for n in names[:12])
        raise DataError(
            f"The header (row 1) lacks the column {', '.join(missing)}; it has {found}.",
            f"Name the columns {EXPECTED}, separated by commas.",
        )
    time_names = [name for name in TIME_NAMES if name in names]
    time_place = names.index(time_names[0]) if time_names else None
    return [names.index(name) for name in COLUMNS], time_place


def _number(cell: str, line: int, column: str) -> float:
    """A finite number from one cell."""
    text = cell.strip()
    if text.lower() in {"", "nan", "na", "n/a", "null", "none", "-"}:
        raise DataError(
            f"Row {line}, column {column}: the cell is empty or says there is no value.",
            "Fill the missing bar (for example with the last close and volume 0), or cut the "
            "file after the gap.",
        )
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise DataError(
            f"Row {line}, column {column}: {_shown(text)} is not a plain number.",
            "Write digits with a point for decimals, without units or thousands separators.",
        )
    return float(text)


def _check_bar(bar: list[float], line: int) -> None:
    """Prices must be positive and ordered, and volume must not be negative."""
    for column, price in zip(PRICES, bar, strict=False):
        if not MIN_PRICE <= price <= MAX_PRICE:
            raise DataError(
                f"Row {line}, column {column}: the price {price:g} is not a positive price "
                f"between {MIN_PRICE:g} and {MAX_PRICE:g}.",
                "Correct the price; features use its logarithm.",
            )
    opened, high, low, close, volume = bar
    if high < low:
        raise DataError(
            f"Row {line}, column high: the high {high:g} is below the low {low:g}.",
            "Check whether the two columns are swapped.",
        )
    for column, price in (("open", opened), ("close", close)):
        if not low <= price <= high:
            raise DataError(
                f"Row {line}, column {column}: {price:g} lies outside the bar's low {low:g} and "
                f"high {high:g}.",
                "Correct the bar; open and close lie between low and high.",
            )
    if not 0.0 <= volume <= MAX_PRICE:
        raise DataError(
            f"Row {line}, column volume: {volume:g} is not between 0 and {MAX_PRICE:g}.",
            "Correct the volume; a bar without trades has volume 0.",
        )


def _shown(text: str) -> str:
    """Text from the file, quoted and cut to a length that fits a message."""
    cut = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
    return repr(cut)
