"""Segments of a series and the file that ships three of them.

`data.npz` keeps raw bars, window ends and labels of the calibration, selection and holdout
segments. The training part is not shipped: the seed rebuilds it. Loading runs the same pipeline
as a person's own CSV does.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.errors import DataError
from sample_models.arrays import read_arrays, write_arrays
from sample_models.informer.features import compute_features
from sample_models.informer.market import generate_market
from sample_models.informer.windows import (
    CLASS_NAMES,
    GAP,
    SEQ_LEN,
    IntArray,
    Scaler,
    cut_windows,
    forward_labels,
    window_ends,
)

SPLITS: tuple[str, ...] = ("calibration", "selection", "holdout")
SPLIT_WINDOWS: tuple[int, ...] = (256, 1500, 1500)
SPLIT_ROWS: tuple[int, ...] = (6_000, 24_000, 24_000)
TRAIN_ROWS = 200_000
FIELDS = ("time", "ohlcv", "ends", "labels")
OHLCV: tuple[str, ...] = ("open", "high", "low", "close", "volume")

MAX_FILE_BYTES = 20_000_000
REBUILD = (
    "Restore the shipped file (git checkout), or rebuild it with "
    "`python -m sample_models.informer.train`."
)


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive bars with the windows drawn from them.

    `bars` has T rows, `ends` are int64 [N] positions in it, `labels` are int64 [N] classes.
    """

    bars: pd.DataFrame
    ends: IntArray
    labels: IntArray

    def inputs(self, scaler: Scaler) -> NDArray[np.float32]:
        """Model inputs [N, L, D]: features of this segment alone, clipped, scaled, cut."""
        return cut_windows(scaler.transform(compute_features(self.bars)), self.ends)


def draw_segment(bars: pd.DataFrame, count: int, seed: int) -> Segment:
    """Draw up to `count` labelled windows from consecutive bars."""
    ends = window_ends(len(bars), count, seed)
    return Segment(bars, ends, forward_labels(bars["close"])[ends - 1])


def build_segments(
    seed: int, train_rows: int = TRAIN_ROWS
) -> tuple[pd.DataFrame, dict[str, Segment]]:
    """Generate the synthetic series and cut it: training bars first, then the three splits."""
    rows = (train_rows, *SPLIT_ROWS)
    market = generate_market(sum(rows) + GAP * len(SPLIT_ROWS), seed)
    segments: dict[str, Segment] = {}
    start = train_rows + GAP
    for number, name in enumerate(SPLITS):
        bars = market.bars.iloc[start : start + SPLIT_ROWS[number]]
        segments[name] = draw_segment(bars, SPLIT_WINDOWS[number], seed * 1000 + number + 1)
        start += SPLIT_ROWS[number] + GAP
    return market.bars.iloc[:train_rows], segments


def save_segments(path: Path, segments: dict[str, Segment]) -> None:
    """Write the three splits to a compressed .npz, replacing it in one step."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for name in SPLITS:
        segment = segments[name]
        times = pd.DatetimeIndex(segment.bars.index).as_unit("s")
        arrays[f"{name}_time"] = times.asi8
        arrays[f"{name}_ohlcv"] = segment.bars[list(OHLCV)].to_numpy(dtype=np.float64)
        arrays[f"{name}_ends"] = segment.ends
        arrays[f"{name}_labels"] = segment.labels
    write_arrays(path, arrays)


def load_segments(path: Path) -> dict[str, Segment]:
    """Read the three splits.

    Raises:
        DataError: The file is missing, too large once unpacked, damaged, or inconsistent.
    """
    if path.is_file() and path.stat().st_size > MAX_FILE_BYTES:
        raise DataError(f"The data file {path} exceeds {MAX_FILE_BYTES / 1e6:.0f} MB.", REBUILD)
    names = tuple(f"{split}_{field}" for split in SPLITS for field in FIELDS)
    arrays = read_arrays(path, names, REBUILD)
    return {name: _segment(path, name, arrays) for name in SPLITS}


def _segment(path: Path, name: str, arrays: dict[str, NDArray[Any]]) -> Segment:
    """One split, checked so that nothing later can index outside it."""
    time, ohlcv, ends, labels = (arrays[f"{name}_{field}"] for field in FIELDS)
    shapes_fit = (
        time.ndim == ends.ndim == 1
        and ohlcv.shape == (len(time), len(OHLCV))
        and ends.shape == labels.shape
        and len(ends) > 0
        and ohlcv.dtype == np.float64
        and all(a.dtype == np.int64 for a in (time, ends, labels))
    )
    if not shapes_fit:
        raise DataError(f"The {name} arrays in {path} have other shapes or types.", REBUILD)
    if not np.isfinite(ohlcv).all() or (ohlcv[:, :4] <= 0).any() or (ohlcv[:, 4] < 0).any():
        raise DataError(f"The {name} bars in {path} hold impossible prices.", REBUILD)
    if ends.min() < SEQ_LEN or ends.max() > len(time):
        raise DataError(f"The {name} windows in {path} reach outside the series.", REBUILD)
    if labels.min() < 0 or labels.max() >= len(CLASS_NAMES):
        raise DataError(f"The {name} labels in {path} are not among the classes.", REBUILD)
    index = pd.DatetimeIndex(pd.to_datetime(time, unit="s", utc=True), name="timestamp")
    return Segment(pd.DataFrame(ohlcv, columns=list(OHLCV), index=index), ends, labels)
