"""The synthetic market, the features and the windows cut from them."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sample_models.informer.dataset import (
    SPLITS,
    build_segments,
    draw_segment,
    load_segments,
    save_segments,
)
from sample_models.informer.features import FEATURES, WARM_UP, compute_features
from sample_models.informer.market import Market, generate_market
from sample_models.informer.windows import (
    GAP,
    HORIZON,
    SEQ_LEN,
    Scaler,
    cut_windows,
    forward_labels,
    split_rows,
    window_ends,
)


@pytest.fixture(scope="module")
def market() -> Market:
    """Generate 12,000 bars."""
    return generate_market(12_000, seed=5)


def test_generator_is_seeded(market: Market) -> None:
    """The same seed gives the same bars, another seed others."""
    again, other = generate_market(12_000, seed=5), generate_market(12_000, seed=6)
    pd.testing.assert_frame_equal(market.bars, again.bars)
    assert not market.bars["close"].equals(other.bars["close"])


def test_bars_are_consistent(market: Market) -> None:
    """Open and close lie between low and high, prices and volumes are positive."""
    bars = market.bars
    assert (bars["low"] > 0).all()
    assert (bars["volume"] > 0).all()
    assert (bars[["open", "close"]].max(axis=1) <= bars["high"]).all()
    assert (bars[["open", "close"]].min(axis=1) >= bars["low"]).all()


def test_returns_have_fat_tails_and_clusters(market: Market) -> None:
    """Excess kurtosis and the autocorrelation of |r| are positive; volume follows |r|."""
    size = np.log(market.bars["close"]).diff().dropna()
    absolute = size.abs()
    assert size.kurt() > 1.0
    assert absolute.autocorr(1) > 0.05
    assert absolute.autocorr(10) > 0.03
    assert absolute.corr(market.bars["volume"].iloc[1:]) > 0.2


def test_regimes_persist(market: Market) -> None:
    """All four regimes occur and last for tens of bars."""
    assert set(np.unique(market.regimes)) == {0, 1, 2, 3}
    changes = int((np.diff(market.regimes) != 0).sum())
    assert len(market.regimes) / changes > 30


def test_features_are_finite(market: Market) -> None:
    """Features are finite from the first bar on and have the named columns."""
    features = compute_features(market.bars)
    assert features.shape == (12_000, len(FEATURES))
    assert np.isfinite(features).all()


def test_features_survive_a_dead_market() -> None:
    """Constant prices without volume give neutral features, not NaN."""
    flat = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), 10.0), index=range(300))
    flat["volume"] = 0.0
    features = compute_features(flat)
    assert np.isfinite(features).all()
    assert np.abs(features).max() < 1e-6


@pytest.mark.parametrize("cut", [200, 777, 1500])
def test_features_do_not_look_ahead(market: Market, cut: int) -> None:
    """Changing rows from `cut` on leaves all earlier features as they were."""
    bars = market.bars.iloc[:2000]
    changed = bars.copy()
    changed.iloc[cut:] = changed.iloc[cut:] * 3.0
    before, after = compute_features(bars), compute_features(changed)
    np.testing.assert_array_equal(before[:cut], after[:cut])
    assert not np.array_equal(before[cut:], after[cut:])


def test_features_have_no_units(market: Market) -> None:
    """Prices in another currency give the same features."""
    bars = market.bars.iloc[:2000]
    scaled = bars.copy()
    scaled[["open", "high", "low", "close"]] *= 1e-3
    np.testing.assert_allclose(compute_features(bars), compute_features(scaled), atol=1e-6)


def test_labels_follow_the_future() -> None:
    """A rise is 2, a fall is 0, noise around a level is 1, and the end has no label."""
    noise = np.random.default_rng(0).standard_normal(400) * 1e-4
    steady = noise.copy()
    steady[1::2] = -noise[::2]
    for slope, expected in ((1e-3, 2), (-1e-3, 0), (0.0, 1)):
        close = pd.Series(100.0 * np.exp(np.cumsum(steady + slope)))
        labels = forward_labels(close)
        assert (labels[-HORIZON:] == -1).all()
        assert np.bincount(labels[40:-HORIZON]).argmax() == expected


def test_windows_are_distinct_and_labelled() -> None:
    """Ends are distinct, seeded, warmed up and leave room for the label; few rows give few."""
    ends = window_ends(1000, 256, seed=1)
    assert len(set(ends.tolist())) == 256
    np.testing.assert_array_equal(ends, window_ends(1000, 256, seed=1))
    assert ends.min() >= WARM_UP + SEQ_LEN
    assert ends.max() <= 1000 - HORIZON
    assert len(window_ends(WARM_UP + SEQ_LEN + HORIZON, 256, seed=1)) == 1
    assert len(window_ends(10, 256, seed=1)) == 0


def test_window_ends_before_its_index() -> None:
    """Window e holds bars e - 64 to e - 1."""
    ramp = np.arange(200, dtype=np.float32)[:, None]
    window = cut_windows(ramp, np.array([100]))
    np.testing.assert_array_equal(window[0, :, 0], np.arange(36, 100))


def test_scaler_clips_then_standardises() -> None:
    """An outlier ends at the bound learnt in training, and training data get mean 0, scale 1."""
    data = np.random.default_rng(2).standard_normal((5000, 3)) * [1.0, 10.0, 0.1] + 4.0
    scaler = Scaler.fit(data)
    scaled = scaler.transform(data)
    np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=1e-3)
    np.testing.assert_allclose(scaled.std(axis=0), 1.0, atol=1e-3)
    extreme = scaler.transform(np.full((1, 3), 1e9))
    bound = (scaler.clip_high - scaler.mean) / scaler.scale
    assert extreme[0].tolist() == pytest.approx(bound.tolist())


def test_splits_of_a_series_do_not_touch() -> None:
    """Segments keep a gap of window and horizon, whatever the number of rows."""
    for rows in (500, 1175, 99_999):
        parts = split_rows(rows, (0.2, 0.4, 0.4))
        assert parts[0].start == 0
        assert parts[-1].stop == rows
        for earlier, later in pairwise(parts):
            assert later.start - earlier.stop >= GAP


def test_built_splits_do_not_overlap_in_time() -> None:
    """Training, calibration, selection and holdout follow one another with gaps between them."""
    train, segments = build_segments(seed=3, train_rows=2_000)
    bar = train.index[1] - train.index[0]
    ordered = [train, *(segments[name].bars for name in SPLITS)]
    for earlier, later in pairwise(ordered):
        assert later.index[0] - earlier.index[-1] > GAP * bar
    assert [len(segments[name].ends) for name in SPLITS] == [256, 1500, 1500]


def test_data_file_round_trip(market: Market, tmp_path: Path) -> None:
    """What was saved is what is loaded, to the last bit."""
    path = tmp_path / "data.npz"
    segments = {
        name: draw_segment(market.bars.iloc[part], 50, seed=1)
        for name, part in zip(SPLITS, split_rows(3_000, (0.2, 0.4, 0.4)), strict=True)
    }
    save_segments(path, segments)
    loaded = load_segments(path)
    for name in SPLITS:
        np.testing.assert_array_equal(loaded[name].bars, segments[name].bars)
        assert (loaded[name].bars.index == segments[name].bars.index).all()
        np.testing.assert_array_equal(loaded[name].ends, segments[name].ends)
        np.testing.assert_array_equal(loaded[name].labels, segments[name].labels)
