"""A synthetic market: OHLCV bars with regimes, volatility clustering and fat tails.

Nothing here was ever traded. The series exists so that a classifier has something to learn and
so that everyone can rebuild it from a seed. It shows the well-known "stylised facts" of real
returns (Cont 2001, "Empirical properties of asset returns", Quantitative Finance 1): heavy
tails, clustered volatility, volume that grows with the size of the move.

The model, bar by bar, with r the log return and s the conditional volatility:

* a hidden regime follows a Markov chain (up, down, ranging, turbulent);
* s^2 = (1 - a - b) * (scale * base)^2 + a * shock^2 + b * s_before^2, a GARCH(1, 1)
  (Bollerslev 1986) whose long-run level depends on the regime;
* r = drift * scale * base - pull * (log price - anchor) + s * e, with e from a Student t scaled
  to unit variance; the anchor of a ranging market is the price where the regime began;
* a gap opens the bar, wicks reach beyond the body, volume is log-normal around |r| / s_base.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

REGIMES: tuple[str, ...] = ("up", "down", "ranging", "turbulent")
BAR_SECONDS = 900
START_SECONDS = 1_451_606_400  # 2016-01-01 00:00 UTC


@dataclass(frozen=True, slots=True)
class MarketConfig:
    """Parameters of the generator; volatilities are per bar, durations are in bars."""

    base_volatility: float = 0.002
    start_price: float = 30_000.0
    drift: tuple[float, ...] = (0.45, -0.45, 0.0, 0.0)
    scale: tuple[float, ...] = (1.0, 1.0, 0.9, 2.2)
    pull: tuple[float, ...] = (0.0, 0.0, 0.22, 0.01)
    mean_duration: tuple[float, ...] = (140.0, 140.0, 140.0, 60.0)
    weight: tuple[float, ...] = (0.29, 0.29, 0.28, 0.14)
    garch_alpha: float = 0.08
    garch_beta: float = 0.88
    tail_degrees: float = 4.5
    price_anchor_strength: float = 0.6


@dataclass(frozen=True, slots=True)
class Market:
    """A generated series: `bars` with OHLCV columns, and the hidden regime index of every bar."""

    bars: pd.DataFrame
    regimes: NDArray[np.int64]


def generate_market(rows: int, seed: int, config: MarketConfig | None = None) -> Market:
    """Generate synthetic 15-minute bars.

    Args:
        rows: Number of bars.
        seed: Seed of the only random generator used.
        config: Parameters of the process.

    Returns:
        Bars indexed by UTC time with float64 columns open, high, low, close, volume, and the
        regime of each bar as an index into `REGIMES`.
    """
    c = config or MarketConfig()
    rng = np.random.default_rng(seed)
    spread = np.sqrt(c.tail_degrees / (c.tail_degrees - 2.0))
    shocks = rng.standard_t(c.tail_degrees, rows) / spread
    log_close, volatility, regimes = _simulate_close(shocks, rng.random((rows, 2)), c)
    bars = _dress_bars(log_close, volatility, rng, c)
    return Market(bars, regimes)


def _simulate_close(
    shocks: NDArray[np.float64], draws: NDArray[np.float64], c: MarketConfig
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Walk the hidden regime and the GARCH recursion; returns log close, volatility, regime."""
    rows = len(shocks)
    log_close = np.empty(rows)
    volatility = np.empty(rows)
    regimes = np.empty(rows, dtype=np.int64)
    start = float(np.log(c.start_price))
    price, anchor, regime = start, start, 2
    variance = c.base_volatility**2
    residual = 0.0
    for t in range(rows):
        if draws[t, 0] < 1.0 / c.mean_duration[regime]:
            regime = _next_regime(regime, draws[t, 1], price - start, c)
            anchor = price
        level = c.scale[regime] * c.base_volatility
        variance = (
            (1.0 - c.garch_alpha - c.garch_beta) * level**2
            + c.garch_alpha * residual**2
            + c.garch_beta * variance
        )
        residual = float(np.sqrt(variance)) * float(shocks[t])
        price += c.drift[regime] * level - c.pull[regime] * (price - anchor) + residual
        log_close[t], volatility[t], regimes[t] = price, np.sqrt(variance), regime
    return log_close, volatility, regimes


def _next_regime(regime: int, draw: float, distance: float, c: MarketConfig) -> int:
    """Leave a regime for another one.

    Rising markets become rarer far above the start price and falling ones far below it, which
    keeps a series of years within a believable range of prices.
    """
    weight = np.array(c.weight)
    tilt = c.price_anchor_strength * np.tanh(distance)
    weight[0] *= 1.0 - tilt
    weight[1] *= 1.0 + tilt
    weight[regime] = 0.0
    share = np.cumsum(weight / weight.sum())
    return min(int(np.searchsorted(share, draw)), len(weight) - 1)


def _dress_bars(
    log_close: NDArray[np.float64],
    volatility: NDArray[np.float64],
    rng: np.random.Generator,
    c: MarketConfig,
) -> pd.DataFrame:
    """Give each close an open, wicks and a volume, rounded as an exchange would print them."""
    rows = len(log_close)
    before = np.concatenate(([np.log(c.start_price)], log_close[:-1]))
    log_open = before + 0.05 * volatility * rng.standard_normal(rows)
    wicks = np.abs(rng.standard_normal((2, rows))) * 0.5 * volatility
    log_high = np.maximum(log_open, log_close) + wicks[0]
    log_low = np.minimum(log_open, log_close) - wicks[1]
    move = np.abs(log_close - before) / c.base_volatility
    volume = 100.0 * np.exp(0.6 * np.log1p(move) + 0.35 * rng.standard_normal(rows))
    columns = {"open": log_open, "high": log_high, "low": log_low, "close": log_close}
    data = {name: np.maximum(np.exp(v).round(2), 0.01) for name, v in columns.items()}
    data["volume"] = volume.round(3)
    seconds = START_SECONDS + BAR_SECONDS * np.arange(rows, dtype=np.int64)
    index = pd.DatetimeIndex(pd.to_datetime(seconds, unit="s", utc=True), name="timestamp")
    return pd.DataFrame(data, index=index)
