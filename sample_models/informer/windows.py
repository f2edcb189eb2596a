"""From features to model inputs: labels, splits in time, windows, and the scaler."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sample_models.informer.features import WARM_UP, trailing_volatility

SEQ_LEN = 64
HORIZON = 12
LABEL_THRESHOLD = 0.6
GAP = SEQ_LEN + HORIZON
"""Bars left out between two segments, so that no window or label reaches into another one."""

CLASS_NAMES: tuple[str, ...] = ("down", "flat", "up")
CLIP_QUANTILES = (0.001, 0.999)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scaler:
    """Outlier bounds and standardisation, learnt on the training part alone.

    Each field is a float32 array [D]. Clipping comes first, so that mean and scale describe what
    the model really sees.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    clip_low: NDArray[np.float32]
    clip_high: NDArray[np.float32]

    @classmethod
    def fit(cls, features: FloatArray) -> Self:
        """Learn bounds (0.1 % and 99.9 % quantiles), mean and deviation from features [T, D]."""
        low, high = np.quantile(features, CLIP_QUANTILES, axis=0)
        clipped = np.clip(features, low, high)
        scale = np.maximum(clipped.std(axis=0), 1e-6)
        arrays = (clipped.mean(axis=0), scale, low, high)
        return cls(*(np.asarray(a, dtype=np.float32) for a in arrays))

    def transform(self, features: FloatArray) -> NDArray[np.float32]:
        """Clip and standardise features [T, D]."""
        clipped = np.clip(features, self.clip_low, self.clip_high)
        return np.asarray((clipped - self.mean) / self.scale, dtype=np.float32)


def forward_labels(close: pd.Series) -> IntArray:
    """Class of each bar: what the price does over the next `HORIZON` bars.

    The forward log return is divided by trailing volatility times sqrt(HORIZON). Below
    -LABEL_THRESHOLD is 0 (down), above LABEL_THRESHOLD is 2 (up), between is 1 (flat). The last
    HORIZON bars have no future and get -1. Where the price stood still, a move counts in full.

    Args:
        close: Closing prices in time order, T values.

    Returns:
        int64 array [T] with values -1, 0, 1, 2.
    """
    log_close = np.log(close.to_numpy(dtype=np.float64))
    volatility = trailing_volatility(close).fillna(1e-8).to_numpy(dtype=np.float64)
    labels = np.full(len(log_close), -1, dtype=np.int64)
    if len(log_close) > HORIZON:
        forward = log_close[HORIZON:] - log_close[:-HORIZON]
        z = forward / (volatility[:-HORIZON] * HORIZON**0.5)
        labels[:-HORIZON] = 1 + (z > LABEL_THRESHOLD) - (z < -LABEL_THRESHOLD)
    return labels


def window_ends(rows: int, count: int, seed: int) -> IntArray:
    """Draw window ends: window e covers bars e - SEQ_LEN to e - 1 and is labelled at bar e - 1.

    Like `rng.integers(SEQ_LEN, T, size=n)`, but without duplicates, and kept to windows whose
    features have warmed up and whose label has a future.

    Args:
        rows: Bars of the segment, T.
        count: Windows wanted; fewer are returned when the segment holds fewer.
        seed: Seed of the draw.

    Returns:
        Distinct ends in the order drawn, int64 [min(count, available)].
    """
    first, last = WARM_UP + SEQ_LEN, rows - HORIZON
    available = max(last - first + 1, 0)
    rng = np.random.default_rng(seed)
    return np.asarray(
        first + rng.choice(available, size=min(count, available), replace=False), dtype=np.int64
    )


def cut_windows(scaled: NDArray[np.float32], ends: IntArray) -> NDArray[np.float32]:
    """Cut windows [N, SEQ_LEN, D] that end before each of `ends` from scaled features [T, D]."""
    offsets = np.arange(-SEQ_LEN, 0)
    windows: NDArray[np.float32] = scaled[ends[:, None] + offsets]
    return windows


def split_rows(rows: int, shares: tuple[float, ...]) -> list[slice]:
    """Cut T bars into consecutive segments with a gap of `GAP` bars before all but the first.

    Args:
        rows: Bars in all, T.
        shares: Share of each segment; they add up to 1.

    Returns:
        One slice per share. A segment too short for its gap is empty.
    """
    bounds = np.rint(np.cumsum((0.0, *shares)) * rows).astype(int).tolist()
    starts = [bounds[0], *(b + GAP for b in bounds[1:-1])]
    return [slice(min(s, e), e) for s, e in zip(starts, bounds[1:], strict=True)]
