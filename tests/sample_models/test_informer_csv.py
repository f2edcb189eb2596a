"""A person's own OHLCV file: what is read, and how each mistake is named."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import DataError
from sample_models.informer import ohlcv_csv
from sample_models.informer.market import generate_market
from sample_models.informer.ohlcv_csv import read_ohlcv_csv

HEADER = "timestamp,open,high,low,close,volume"
ROWS = [f"2024-01-01 0{hour}:00,10,12,9,11,{100 + hour}" for hour in range(8)]


def written(folder: Path, lines: list[str]) -> Path:
    """Write lines to a CSV file."""
    path = folder / "bars.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def with_row(position: int, row: str) -> list[str]:
    """Replace one of the good rows."""
    rows = list(ROWS)
    rows[position] = row
    return [HEADER, *rows]


def test_good_file_is_read(tmp_path: Path) -> None:
    """Column names in any case and order, extra columns and blank lines are fine."""
    lines = ["Volume,CLOSE,Low,High,Open,note,Date", "5,11,9,12,10,x,2024-01-01", ""]
    bars = read_ohlcv_csv(written(tmp_path, [*lines, "6,11,9,12,10,y,2024-01-02"]))
    assert list(bars.columns) == ["open", "high", "low", "close", "volume"]
    assert bars["volume"].tolist() == [5.0, 6.0]
    assert str(bars.index[1]) == "2024-01-02 00:00:00+00:00"


def test_file_without_times_is_read(tmp_path: Path) -> None:
    """The time column is optional, and a byte-order mark does no harm."""
    path = tmp_path / "bars.csv"
    path.write_text("open,high,low,close,volume\n1,2,0.5,1.5,0\n", encoding="utf-8-sig")
    assert read_ohlcv_csv(path).iloc[0].tolist() == [1.0, 2.0, 0.5, 1.5, 0.0]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_epoch_times_are_read(tmp_path: Path, unit: str) -> None:
    """Whole numbers since 1970 are understood in four units."""
    factor = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    rows = [f"{(1_700_000_000 + 60 * i) * factor},10,12,9,11,5" for i in range(3)]
    bars = read_ohlcv_csv(written(tmp_path, [HEADER, *rows]))
    assert str(bars.index[1]) == "2023-11-14 22:14:20+00:00"


def test_weekends_are_no_gaps_in_daily_bars(tmp_path: Path) -> None:
    """Daily bars may skip weekends."""
    days = pd.bdate_range("2024-01-01", periods=12)
    rows = [f"{day:%Y-%m-%d},10,12,9,11,5" for day in days]
    assert len(read_ohlcv_csv(written(tmp_path, [HEADER, *rows]))) == 12


def test_generated_bars_survive_the_file(tmp_path: Path) -> None:
    """Bars written with pandas come back to the last bit."""
    bars = generate_market(500, seed=1).bars
    path = tmp_path / "bars.csv"
    bars.to_csv(path)
    loaded = read_ohlcv_csv(path)
    np.testing.assert_array_equal(loaded.to_numpy(), bars.to_numpy())
    assert (loaded.index == bars.index).all()


MISTAKES = {
    "missing column": (
        ["timestamp,open,high,low,close", "2024-01-01,1,1,1,1"],
        ["row 1", "volume"],
    ),
    "column twice": (["open,Open,high,low,close,volume", "1,1,1,1,1,1"], ["row 1", "open"]),
    "semicolons": ([HEADER.replace(",", ";"), "1;2;3;4;5;6"], ["row 1", "lacks"]),
    "text": (with_row(2, "2024-01-01 02:00,10,twelve,9,11,5"), ["Row 4", "high", "twelve"]),
    "thousands": (with_row(2, '2024-01-01 02:00,"1,000",12,9,11,5'), ["Row 4", "open"]),
    "underscore": (with_row(2, "2024-01-01 02:00,1_0,12,9,11,5"), ["Row 4", "open"]),
    "infinite": (with_row(2, "2024-01-01 02:00,10,1e999,9,11,5"), ["Row 4", "high"]),
    "empty cell": (with_row(3, "2024-01-01 03:00,10,12,,11,5"), ["Row 5", "low", "empty"]),
    "nan": (with_row(3, "2024-01-01 03:00,10,12,9,NaN,5"), ["Row 5", "close", "no value"]),
    "empty row": (with_row(3, ",,,,,"), ["Row 5", "open"]),
    "negative price": (with_row(1, "2024-01-01 01:00,10,12,-9,11,5"), ["Row 3", "low", "positive"]),
    "zero price": (with_row(1, "2024-01-01 01:00,0,12,9,11,5"), ["Row 3", "open", "positive"]),
    "high below low": (with_row(1, "2024-01-01 01:00,10,8,9,11,5"), ["Row 3", "high", "below"]),
    "close outside": (with_row(1, "2024-01-01 01:00,10,12,9,13,5"), ["Row 3", "close", "outside"]),
    "negative volume": (with_row(1, "2024-01-01 01:00,10,12,9,11,-5"), ["Row 3", "volume"]),
    "short row": (with_row(4, "2024-01-01 04:00,10,12,9"), ["Row 6", "4 cells"]),
    "bad time": (with_row(4, "yesterday,10,12,9,11,5"), ["Row 6", "timestamp", "yesterday"]),
    "same time": (with_row(4, ROWS[3]), ["Row 6", "timestamp", "same time"]),
    "unsorted": (with_row(4, ROWS[1]), ["Row 6", "timestamp", "earlier"]),
    "missing bars": ([HEADER, *ROWS[:4], *ROWS[6:]], ["Row 6", "timestamp", "2 bars are missing"]),
    "empty file": ([""], ["empty"]),
    "header only": ([HEADER], ["no rows"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_name_row_and_column(tmp_path: Path, mistake: str) -> None:
    """Each mistake is a DataError that names where it is and what to do."""
    lines, words = MISTAKES[mistake]
    with pytest.raises(DataError) as caught:
        read_ohlcv_csv(written(tmp_path, lines))
    for word in words:
        assert word in caught.value.cause
    assert caught.value.next_step


def test_file_problems_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing, binary or oversized file is refused before it is parsed."""
    with pytest.raises(DataError, match="does not exist"):
        read_ohlcv_csv(tmp_path / "none.csv")
    binary = tmp_path / "binary.csv"
    binary.write_bytes(bytes(range(256)) * 40)
    with pytest.raises(DataError, match="UTF-8"):
        read_ohlcv_csv(binary)
    monkeypatch.setattr(ohlcv_csv, "MAX_FILE_BYTES", 10)
    with pytest.raises(DataError, match="at most"):
        read_ohlcv_csv(written(tmp_path, [HEADER, *ROWS]))


_quiet = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@_quiet
@given(content=st.binary(max_size=400))
def test_junk_bytes_are_a_data_error(tmp_path: Path, content: bytes) -> None:
    """Random bytes never raise anything but DataError."""
    path = tmp_path / "junk.csv"
    path.write_bytes(content)
    with pytest.raises(DataError):
        read_ohlcv_csv(path)


_cell = st.one_of(
    st.text(max_size=12),
    st.floats().map(str),
    st.integers().map(str),
    st.datetimes().map(str),
    st.sampled_from(["2024", "1700000000", "9999999999999999999", "2024-13-01", "1e308", "NaT"]),
)


@_quiet
@given(rows=st.lists(st.lists(_cell, min_size=6, max_size=6), min_size=1, max_size=6))
def test_junk_cells_are_bars_or_a_data_error(tmp_path: Path, rows: list[list[str]]) -> None:
    """Random cells under a good header give finite bars or a DataError."""
    path = tmp_path / "junk.csv"
    text = "\n".join([HEADER, *(",".join(row) for row in rows)])
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        bars = read_ohlcv_csv(path)
    except DataError:
        return
    assert np.isfinite(bars.to_numpy()).all()


@_quiet
@given(times=st.lists(_cell, min_size=1, max_size=5))
def test_junk_times_are_a_data_error(tmp_path: Path, times: list[str]) -> None:
    """Random times beside good prices give an ascending index or a DataError."""
    path = tmp_path / "junk.csv"
    cells = [time.replace('"', "").replace(",", "").replace("\r", "") for time in times]
    text = "\n".join([HEADER, *(f'"{cell}",10,12,9,11,5' for cell in cells)])
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        bars = read_ohlcv_csv(path)
    except DataError:
        return
    assert bars.index.is_monotonic_increasing
