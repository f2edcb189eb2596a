"""Histograms of activations that are filled batch by batch, in bounded memory.

Bins are as wide as a power of two and one of them starts at 0. Where a value falls outside, bins
are merged in pairs until it fits, which loses no count: the counts depend on the values alone and
not on how they were divided into batches.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Doubles = NDArray[np.float64]

BINS = 4096
ROUNDING = 1e-12
"""Of a share, so that 0.0005 * 20,000 values are 10 and not a little more."""
SMALLEST = -140
"""Bins are never narrower than 2^SMALLEST; float32 holds nothing finer that matters."""


class Histogram:
    """How often values were met. `low` and `high` are exact, and so is the number of zeros, which
    lie in no bin. Bin i covers [(first + i) w, (first + i + 1) w) with w = 2^exponent. What is
    not finite does not count.
    """

    def __init__(self, bins: int = BINS) -> None:
        self.bins = bins
        self.exponent: int | None = None
        self.first = 0
        self.counts = np.zeros(0, dtype=np.int64)
        self.sums = np.zeros(0, dtype=np.float64)
        self.zeros = 0
        self.low, self.high = math.inf, -math.inf

    @property
    def width(self) -> float:
        """Width of a bin, in the unit of the values."""
        return 0.0 if self.exponent is None else 2.0**self.exponent

    @property
    def total(self) -> int:
        """Number of values."""
        return self.zeros + int(self.counts.sum())

    def add(self, value: Tensor) -> None:
        """Count every element of `value`."""
        seen: Doubles = value.detach().to("cpu", torch.float64).flatten().numpy()
        seen = seen[np.isfinite(seen)]
        if not seen.size:
            return
        self.low = min(self.low, float(seen.min()))
        self.high = max(self.high, float(seen.max()))
        others = seen[seen != 0.0]
        self.zeros += seen.size - others.size
        if not others.size:
            return
        self._widen()
        places = np.floor(others / self.width).astype(np.int64) - self.first
        self.counts += np.bincount(places, minlength=len(self.counts))
        self.sums += np.bincount(places, weights=others, minlength=len(self.sums))

    def _widen(self) -> None:
        """Let the bins cover 0 and everything that was met."""
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        exponent = SMALLEST if self.exponent is None else self.exponent
        needed = math.frexp((high - low) / self.bins)[1] - 1
        exponent = max(exponent, needed)
        while _last(high, exponent) - math.floor(low / 2.0**exponent) >= self.bins:
            exponent += 1
        while self.exponent is not None and self.exponent < exponent:
            self._merge_pairs()
        first = math.floor(low / 2.0**exponent)
        size = _last(high, exponent) - first + 1
        counts, sums = np.zeros(size, dtype=np.int64), np.zeros(size)
        start = self.first - first
        counts[start : start + len(self.counts)] = self.counts
        sums[start : start + len(self.sums)] = self.sums
        self.counts, self.sums, self.first, self.exponent = counts, sums, first, exponent

    def _merge_pairs(self) -> None:
        ahead = self.first % 2
        behind = (ahead + len(self.counts)) % 2
        self.counts = np.pad(self.counts, (ahead, behind)).reshape(-1, 2).sum(axis=1)
        self.sums = np.pad(self.sums, (ahead, behind)).reshape(-1, 2).sum(axis=1)
        self.first //= 2
        self.exponent = (self.exponent or 0) + 1

    def points(self) -> tuple[Doubles, Doubles]:
        """The mean of the values in each bin that holds some, and their number; zeros too."""
        some = self.counts > 0
        values, counts = self.sums[some] / self.counts[some], self.counts[some]
        if self.zeros:
            values, counts = np.append(values, 0.0), np.append(counts, self.zeros)
        return values, counts.astype(np.float64)

    def quantiles(self, shares: tuple[float, ...]) -> list[float]:
        """Values below which each of `shares` lies: to within a bin's width of the true ones."""
        edges = (self.first + np.arange(len(self.counts))) * self.width
        at = -self.first  # zeros lie before the bin that starts at 0
        left = np.insert(edges, at, 0.0)
        right = np.insert(edges + self.width, at, 0.0)
        found = quantiles(left, right, np.insert(self.counts, at, self.zeros), shares)
        return [min(max(value, self.low), self.high) for value in found]

    def sizes(self) -> Histogram:
        """The histogram of the absolute values, in the same bins."""
        found = Histogram(self.bins)
        found.zeros, found.exponent = self.zeros, self.exponent
        half = max(-self.first, self.first + len(self.counts))
        both = np.zeros((2, 2 * half), dtype=np.float64)
        both[:, half + self.first : half + self.first + len(self.counts)] = self.counts, self.sums
        folded = both[:, half:] + (both[:, :half] * [[1], [-1]])[:, ::-1]
        found.counts, found.sums = folded[0].astype(np.int64), folded[1]
        found.high = max(-self.low, self.high)
        found.low = 0.0 if self.low <= 0 <= self.high else min(abs(self.low), abs(self.high))
        return found

    def around_zero(self, most: int) -> tuple[NDArray[np.int64], Doubles]:
        """Counts and edges of an even number of bins, at most `most`, with 0 in the middle."""
        merged = Histogram(self.bins)
        merged.counts, merged.sums = self.counts, self.sums
        merged.first, merged.exponent = self.first, self.exponent
        while max(-merged.first, merged.first + len(merged.counts)) * 2 > most:
            merged._merge_pairs()
        half = max(-merged.first, merged.first + len(merged.counts))
        counts = np.zeros(2 * half, dtype=np.int64)
        counts[half + merged.first : half + merged.first + len(merged.counts)] = merged.counts
        counts[half] += self.zeros
        return counts, np.arange(-half, half + 1, dtype=np.float64) * merged.width


def quantiles(
    left: Doubles, right: Doubles, counts: NDArray[np.number], shares: tuple[float, ...]
) -> list[float]:
    """Where each of `shares` of the values is passed, in bins from `left` to `right` in order;
    within a bin values are taken to lie evenly.
    """
    passed = np.cumsum(counts)
    found = []
    for share in shares:
        wanted = (share - ROUNDING) * float(passed[-1])
        i = min(int(np.searchsorted(passed, wanted)), len(passed) - 1)
        inside = float(counts[i])
        part = (wanted - float(passed[i]) + inside) / inside if inside > 0 else 0.0
        found.append(float(left[i]) + part * float(right[i] - left[i]))
    return found


def _last(high: float, exponent: int) -> int:
    """The bin of the largest value; the bins reach 0 even where nothing lies above it."""
    return max(math.floor(high / 2.0**exponent), 0)
