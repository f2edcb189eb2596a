"""Calibrators against brute force on small arrays, and what every range has to hold."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import PolicyError
from core.numerics import scheme as schemes
from core.numerics.activation_grids import grid_of, round_to, squared_errors
from core.numerics.calibrate import calibrators
from core.numerics.calibrate.calibrators import Calibrator
from core.numerics.calibrate.choose import ENTROPY_BINS, ENTROPY_LEVELS, Observed, chosen
from core.numerics.calibrate.histograms import Histogram
from core.numerics.rounding import Range
from core.numerics.scheme import OPENVINO, ORT_CPU, TENSORRT, Scheme

SITE = ("layer", 0, 0)
ALL = [calibrators.get(name) for name in calibrators.names()]
CHEAP = [c for c in ALL if c.name != "entropy"]
GRIDS = [ORT_CPU, TENSORRT, OPENVINO]

floats = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
arrays = st.lists(floats, min_size=1, max_size=60).map(torch.tensor)


def _histogram(*values: torch.Tensor, bins: int = 4096) -> Histogram:
    found = Histogram(bins)
    for value in values:
        found.add(value)
    return found


def _range(values: torch.Tensor, calibrator: Calibrator, scheme: Scheme = ORT_CPU) -> Range:
    observed = Observed(calibrator, scheme)
    for batch in values.split(1000):
        observed.observe(SITE, batch)
    observed.settle()
    return observed[SITE]


def _mse(values: torch.Tensor, seen: Range, scheme: Scheme) -> float:
    return float((values - round_to(values, grid_of(seen, scheme))).double().square().mean())


def _normal(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


# ---- names


def test_names_are_known_and_unknown_ones_name_the_known() -> None:
    """Every name gives its calibrator, an unknown one an error with the known names."""
    assert calibrators.names() == ("min-max", "percentile", "entropy", "mse")
    for name in calibrators.names():
        assert calibrators.get(name).text == name
    assert calibrators.get("percentile:99.9").percent == 99.9
    assert calibrators.get(calibrators.get("percentile:99.9").text).percent == 99.9
    with pytest.raises(PolicyError, match="min-max, percentile, entropy, mse"):
        calibrators.get("median")


@pytest.mark.parametrize(
    "text", ["percentile:", "percentile:x", "percentile:50", "percentile:101", "percentile:nan",
             "mse:3", "min-max:1"],
)  # fmt: skip
def test_a_wrong_parameter_is_refused(text: str) -> None:
    """A parameter that is no percentile, or that a calibrator does not take, is an error."""
    with pytest.raises(PolicyError, match=r"percentile:99\.9"):
        calibrators.get(text)


# ---- histograms


@settings(deadline=None)
@given(arrays, st.integers(1, 60), st.sampled_from([8, 64, 4096]))
def test_a_histogram_does_not_depend_on_batches(values: torch.Tensor, size: int, bins: int) -> None:
    """However values are divided and in whichever order they come, the counts are the same."""
    whole = _histogram(values, bins=bins)
    parts = _histogram(*values.split(size), bins=bins)
    back = _histogram(*reversed(values.split(size)), bins=bins)

    for other in (parts, back):
        assert (whole.exponent, whole.zeros) == (other.exponent, other.zeros)
        assert (whole.low, whole.high) == (other.low, other.high)
        if whole.exponent is not None:
            assert whole.first == other.first
            assert whole.counts.tolist() == other.counts.tolist()


@settings(deadline=None)
@given(arrays, st.sampled_from([8, 64, 4096]))
def test_a_histogram_counts_every_value_in_its_bin(values: torch.Tensor, bins: int) -> None:
    """Memory is bounded, nothing is lost, and each value lies in the bin that counts it."""
    found = _histogram(values, bins=bins)

    assert len(found.counts) <= bins
    assert found.total == len(values)
    assert found.zeros == int((values == 0).sum())
    expected = np.zeros(len(found.counts), dtype=np.int64)
    for value in values[values != 0].double().tolist():
        expected[int(np.floor(value / found.width)) - found.first] += 1
    assert found.counts.tolist() == expected.tolist()


def test_a_histogram_leaves_out_what_is_not_finite() -> None:
    """Masks of minus infinity and NaN are no part of a range."""
    found = _histogram(torch.tensor([1.0, float("-inf"), float("nan"), -2.0]))

    assert (found.total, found.low, found.high) == (2, -2.0, 1.0)


# ---- percentile


@pytest.mark.parametrize("percent", [99.99, 99.9, 99.0, 90.0])
@pytest.mark.parametrize("relu", [False, True])
def test_percentile_is_numpys(percent: float, relu: bool) -> None:
    """Both ends lie within a bin of NumPy's percentiles; on a symmetric grid those of |x|."""
    values = _normal(20_011)  # so that no percentile falls between two values
    values = values.relu() if relu else values
    width = _histogram(values).width
    calibrator = calibrators.get(f"percentile:{percent}")

    seen = _range(values, calibrator)
    symmetric = _range(values, calibrator, TENSORRT)

    half = (100 - percent) / 2
    low, high = np.percentile(values.numpy(), [half, 100 - half], method="inverted_cdf")
    assert (seen.low, seen.high) == (pytest.approx(low, abs=width), pytest.approx(high, abs=width))
    largest = np.percentile(values.abs().numpy(), percent, method="inverted_cdf")
    assert symmetric.high == pytest.approx(min(largest, values.max()), abs=width)


@settings(deadline=None)
@given(arrays, st.floats(50.5, 100), st.floats(50.5, 100), st.sampled_from(GRIDS))
def test_a_larger_percentile_has_a_wider_range(
    values: torch.Tensor, one: float, other: float, scheme: Scheme
) -> None:
    """Ranges grow with the share of the values that they keep."""
    small, large = sorted((one, other))
    inner = _range(values, Calibrator("percentile", "", "", small), scheme)
    outer = _range(values, Calibrator("percentile", "", "", large), scheme)

    slack = 1e-9 * max(1.0, abs(outer.low), abs(outer.high))
    assert outer.low <= inner.low + slack
    assert inner.high - slack <= outer.high


# ---- entropy


def test_entropy_is_onnx_runtimes_on_the_same_histogram() -> None:
    """The range is what ONNX Runtime's collector finds in that histogram, within what was seen."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    values = torch.cat([_normal(5_000), torch.tensor([12.0, -9.0])])
    histogram = _histogram(values)
    counts, edges = histogram.around_zero(ENTROPY_BINS)
    assert counts.sum() == len(values)
    assert len(edges) == len(counts) + 1
    assert np.histogram(values.numpy(), edges)[0].tolist() == counts.tolist()
    collector = HistogramCollector("entropy", False, len(counts), ENTROPY_LEVELS, 100.0, "same")
    collector.histogram_dict = {
        "x": (counts, edges.astype(np.float32), np.float32(-9.0), np.float32(12.0), 12.0)
    }

    low, high, *_ = collector.compute_entropy()["x"]

    found = _range(values, calibrators.get("entropy"))
    assert (found.low, found.high) == (float(low), float(high))
    assert found.high < 12.0  # it does clip


# ---- mse


@pytest.mark.parametrize("scheme", GRIDS, ids=lambda s: s.name)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_mse_is_an_exhaustive_search(scheme: Scheme, relu: bool, seed: int) -> None:
    """No pair of clipping thresholds on a fine grid errs noticeably less than the range chosen."""
    coarse = _four_bits(scheme)  # where clipping pays
    values = torch.cat([_normal(400, seed), torch.tensor([6.0, -5.0, 4.0])])
    values = values.relu() if relu else values
    low, high = float(values.min()), float(values.max())
    parts = np.linspace(0.02, 1.0, 99)

    found = _mse(values, _range(values, calibrators.get("mse"), coarse), coarse)

    ends = itertools.product(parts, parts) if low < 0 else ((1.0, b) for b in parts)
    best = min(_mse(values, Range(low * a, high * b), coarse) for a, b in ends)
    assert found <= 1.03 * best
    assert found < _mse(values, Range(low, high), coarse)


def _four_bits(scheme: Scheme) -> Scheme:
    from dataclasses import replace

    return replace(scheme, activation_bits=4)


@settings(deadline=None, max_examples=40)
@given(arrays, st.sampled_from(GRIDS))
def test_mse_never_errs_more_than_min_max(values: torch.Tensor, scheme: Scheme) -> None:
    """The range of what was seen is among those that are tried."""
    histogram = _histogram(values)
    whole = Range(histogram.low, histogram.high)
    points, counts = histogram.points()

    found = chosen(histogram, calibrators.get("mse"), scheme)

    before, after = squared_errors(points, counts, [whole, found], scheme)
    assert after <= before * (1 + 1e-6) + 1e-12


def test_squared_errors_are_those_of_rounding() -> None:
    """What the search minimises is the error of the simulator's own rounding."""
    values = _normal(300)
    for scheme, seen in itertools.product(GRIDS, [Range(-2.0, 1.5), Range(0.0, 2.5)]):
        (found,) = squared_errors(values.double().numpy(), np.ones(len(values)), [seen], scheme)
        assert found == pytest.approx(_mse(values, seen, scheme) * len(values), rel=1e-4)


# ---- all of them


@settings(deadline=None, max_examples=60)
@given(arrays, st.sampled_from(CHEAP), st.sampled_from(list(schemes.SCHEMES.values())))
def test_a_range_lies_within_what_was_seen_and_its_grid_holds_zero(
    values: torch.Tensor, calibrator: Calibrator, scheme: Scheme
) -> None:
    """No calibrator goes beyond min-max, and 0 is an integer of every grid."""
    low, high = float(values.min()), float(values.max())

    seen = _range(values, calibrator, scheme)

    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert min(low, 0.0) - slack <= seen.low <= seen.high + slack
    assert seen.high <= max(high, 0.0) + slack
    grid = grid_of(seen, scheme)
    assert grid.low <= grid.zero_point <= grid.high
    assert float(round_to(torch.zeros(1), grid)) == 0.0


@pytest.mark.parametrize("calibrator", ALL, ids=lambda c: c.name)
@pytest.mark.parametrize("scheme", GRIDS, ids=lambda s: s.name)
def test_all_zero_has_the_range_of_zero(calibrator: Calibrator, scheme: Scheme) -> None:
    """An activation that is always 0 keeps its value, with no warning on the way."""
    seen = _range(torch.zeros(500), calibrator, scheme)

    assert (seen.low, seen.high) == (0.0, 0.0)
    assert round_to(torch.zeros(3), grid_of(seen, scheme)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("calibrator", ALL, ids=lambda c: c.name)
@pytest.mark.parametrize("scheme", GRIDS, ids=lambda s: s.name)
@pytest.mark.parametrize("value", [5.0, -0.3, 1e-6])
def test_a_constant_keeps_its_value(calibrator: Calibrator, scheme: Scheme, value: float) -> None:
    """Whatever the calibrator, a constant is not clipped away."""
    seen = _range(torch.full((500,), value), calibrator, scheme)

    rounded = round_to(torch.tensor([value]), grid_of(seen, scheme))
    assert float(rounded) == pytest.approx(value, rel=0.01)


@pytest.mark.parametrize("name", ["percentile", "entropy", "mse"])
@pytest.mark.parametrize("scheme", [ORT_CPU, TENSORRT], ids=lambda s: s.name)
def test_one_outlier_in_a_million_does_not_set_the_range(name: str, scheme: Scheme) -> None:
    """Min-max stretches to a lone outlier; every other calibrator leaves it out where that pays."""
    values = torch.cat([_normal(1_000_000), torch.tensor([100.0])])
    bits = scheme if name != "mse" else _four_bits(scheme)  # at 8 bits keeping it is the optimum

    assert _range(values, calibrators.MIN_MAX, bits).high == 100.0
    found = _range(values, calibrators.get(name), bits)
    assert 2.0 < found.high < 30.0
    assert _mse(values[:-1], found, bits) < _mse(values[:-1], Range(-5.0, 100.0), bits) / 5
