"""Ranges of activations as a calibrator chooses them, collected batch by batch."""

from __future__ import annotations

import itertools

import numpy as np
from torch import Tensor

from core.numerics.activation_grids import squared_errors
from core.numerics.calibrate.calibrators import MIN_MAX, Calibrator
from core.numerics.calibrate.histograms import Histogram
from core.numerics.ranges import Ranges, Site
from core.numerics.rounding import Range
from core.numerics.scheme import Scheme

ENTROPY_BINS = 1024
ENTROPY_LEVELS = 128
"""Levels of the quantized histogram, as ONNX Runtime and TensorRT take them."""
LEAST_KEPT = 0.5
STEPS = 16
"""Parts of each end of the range that a search tries, before and once more around the best."""


class Observed(Ranges):
    """Ranges that are being collected: min-max, with histograms where the calibrator needs them."""

    def __init__(self, calibrator: Calibrator, scheme: Scheme) -> None:
        super().__init__()
        self._calibrator, self._scheme = calibrator, scheme
        self._histograms: dict[Site, Histogram] = {}

    def observe(self, site: Site, value: Tensor) -> None:
        """Take note of `value` at `site`."""
        super().observe(site, value)
        if self._calibrator.name != MIN_MAX.name:
            self._histograms.setdefault(site, Histogram()).add(value)

    def settle(self) -> None:
        """Put the calibrator's choice in place of min-max; no more is observed afterwards."""
        for site, histogram in self._histograms.items():
            self[site] = chosen(histogram, self._calibrator, self._scheme)
        self._histograms.clear()


def chosen(histogram: Histogram, calibrator: Calibrator, scheme: Scheme) -> Range:
    """The range for values like those of `histogram`; never beyond what was seen.

    An activation that was always 0, or never finite, has the range of 0 alone.
    """
    if not histogram.total or histogram.low == histogram.high == 0.0:
        return Range(0.0, 0.0)
    whole = Range(histogram.low, histogram.high)
    if calibrator.name == "percentile":
        return percentile(histogram, calibrator.percent or 100.0, scheme)
    if calibrator.name == "entropy":
        return entropy(histogram)
    return least_squares(histogram, scheme) if calibrator.name == "mse" else whole


def percentile(histogram: Histogram, percent: float, scheme: Scheme) -> Range:
    """`percent` % of the values: of their sizes on a symmetric grid, else half of the rest is left
    out at each end.
    """
    if percent >= 100.0:
        return Range(histogram.low, histogram.high)
    if scheme.activations != "affine":
        (largest,) = histogram.sizes().quantiles((percent / 100,))
        return Range(max(histogram.low, -largest), min(histogram.high, largest))
    cut = (100.0 - percent) / 200
    low, high = histogram.quantiles((cut, 1 - cut))
    return Range(low, high)


def entropy(histogram: Histogram) -> Range:
    """The range whose quantized histogram diverges least from the values: ONNX Runtime's search.

    Where few bins hold anything that search finds no divergence to compare and gives its first
    range; one that would clip most of the values is not taken, and min-max stands instead.
    """
    from onnxruntime.quantization.calibrate import HistogramCollector  # half a second to import

    counts, edges = histogram.around_zero(ENTROPY_BINS)
    low, high = np.float32(histogram.low), np.float32(histogram.high)
    collector = HistogramCollector("entropy", False, len(counts), ENTROPY_LEVELS, 100.0, "same")
    with np.errstate(all="ignore"):
        found = collector.get_entropy_threshold(
            (counts, edges.astype(np.float32), low, high), ENTROPY_LEVELS
        )
    inside = counts[(edges[:-1] >= found[0]) & (edges[1:] <= found[1])].sum()
    if inside < LEAST_KEPT * histogram.total:
        return Range(histogram.low, histogram.high)
    return Range(max(float(found[0]), histogram.low), min(float(found[1]), histogram.high))


def least_squares(histogram: Histogram, scheme: Scheme) -> Range:
    """The range with the least squared error of rounding and clipping together.

    Both ends are tried at `STEPS` parts of what was seen, every pair, and then once more around
    the best pair; what was seen itself is among them.
    """
    values, counts = histogram.points()
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if scheme.activations != "affine":
        largest = max(-low, high)
        low, high = (-largest if low < 0 else 0.0), largest
    best, step = (1.0, 1.0), 1 / STEPS
    for width in (step, step**2):
        ends = [_around(part, width) for part in best]
        if scheme.activations != "affine":
            pairs = [(part, part) for part in ends[1]]
        elif low == 0.0 or high == 0.0:
            pairs = [(part, part) for part in ends[0]]
        else:
            pairs = list(itertools.product(ends[0], ends[1]))
        pairs = [(1.0, 1.0), best, *pairs]
        tried = [Range(low * a, high * b) for a, b in pairs]
        best = pairs[int(np.argmin(squared_errors(values, counts, tried, scheme)))]
    return Range(max(low * best[0], histogram.low), min(high * best[1], histogram.high))


def _around(part: float, width: float) -> list[float]:
    """Parts to try: all of (0, 1] in the first round, `STEPS` to each side of `part` after it."""
    if width == 1 / STEPS:
        return [width * k for k in range(1, STEPS + 1)]
    steps = range(-STEPS, STEPS + 1)
    return [part + width * k for k in steps if 0.0 < part + width * k <= 1.0]
