"""Features of an OHLCV series: what the classifier sees at each bar.

Every feature uses the bar itself and earlier bars only, and is free of units: returns are
divided by trailing volatility and prices by true ranges, so that one scaler serves series of
other price levels and bar lengths too.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FEATURES: dict[str, str] = {
    "return_1": "Log return over 1 bar, in units of trailing volatility (32 bars).",
    "return_4": "Log return over 4 bars, in units of trailing volatility times sqrt(4).",
    "return_16": "Log return over 16 bars, in units of trailing volatility times sqrt(16).",
    "volatility_ratio": "Log of 8-bar over 32-bar volatility: is the market waking up?",
    "volatility_level": "Log of 32-bar over 96-bar volatility: calm or stormy for its own past?",
    "rsi_14": "Relative strength index of Wilder over 14 bars, moved to [-1, 1].",
    "macd": "Exponential mean of 12 closes minus that of 26, in average true ranges.",
    "macd_gap": "MACD minus its own 9-bar exponential mean, in average true ranges.",
    "range_ratio": "High minus low of the bar over the average true range of 14 bars.",
    "close_position": "Where the close lies between the bar's low (-1) and high (1).",
    "channel_position": "Where the close lies between the 32-bar low (-1) and high (1).",
    "volume_z": "Log volume as a z-score against the last 32 bars.",
}
"""Name of each feature and what it says, in the order of the model's input channels."""

WARM_UP = 96
"""Bars that the longest look-back needs; windows never begin earlier."""


def compute_features(bars: pd.DataFrame) -> NDArray[np.float64]:
    """Turn bars into features.

    Args:
        bars: Float columns open, high, low, close, volume in time order, T rows.

    Returns:
        Finite float64 array [T, 12] in the order of `FEATURES`. A value that does not exist (the
        warm-up, a flat bar, a stretch without trades) takes the last known value of its feature,
        and 0 where there is none, which is the neutral value of all of them.
    """
    high, low, close = bars["high"], bars["low"], bars["close"]
    log_close = np.log(close)
    step = log_close.diff()
    volatility = trailing_volatility(close)
    atr = _average_true_range(high, low, close)
    macd = close.ewm(span=12, adjust=False).mean() - close.ewm(span=26, adjust=False).mean()
    top, bottom = high.rolling(32).max(), low.rolling(32).min()
    log_volume = np.log1p(bars["volume"])

    table = pd.DataFrame(index=bars.index)
    for lag in (1, 4, 16):
        table[f"return_{lag}"] = log_close.diff(lag) / (volatility * lag**0.5)
    table["volatility_ratio"] = np.log(step.rolling(8).std() / volatility)
    table["volatility_level"] = np.log(volatility / step.rolling(WARM_UP - 1).std())
    table["rsi_14"] = _relative_strength(close)
    table["macd"] = macd / atr
    table["macd_gap"] = (macd - macd.ewm(span=9, adjust=False).mean()) / atr
    table["range_ratio"] = (high - low) / atr
    table["close_position"] = 2.0 * (close - low) / (high - low) - 1.0
    table["channel_position"] = 2.0 * (close - bottom) / (top - bottom) - 1.0
    table["volume_z"] = (log_volume - log_volume.rolling(32).mean()) / log_volume.rolling(32).std()

    filled = table[list(FEATURES)].replace([np.inf, -np.inf], np.nan).ffill().fillna(0.0)
    return filled.to_numpy(dtype=np.float64)


def trailing_volatility(close: pd.Series) -> pd.Series:
    """Standard deviation of log returns over the last 32 bars; NaN where it is zero or unknown."""
    deviation = pd.Series(np.log(close)).diff().rolling(32).std()
    # Rolling sums leave dust of about 1e-9 where prices stand still.
    return deviation.where(deviation > 1e-8)


def _average_true_range(high: pd.Series, low: pd.Series, close: pd.Series) -> pd.Series:
    """Wilder's average true range over 14 bars, in price units; NaN where it is zero."""
    before = close.shift(1).fillna(close)
    true_range = np.maximum(high, before) - np.minimum(low, before)
    average = pd.Series(true_range).ewm(alpha=1.0 / 14.0, adjust=False).mean()
    return average.where(average > 0.0)


def _relative_strength(close: pd.Series) -> pd.Series:
    """Wilder's RSI over 14 bars as (gains - losses) / (gains + losses), in [-1, 1]."""
    change = close.diff().fillna(0.0)
    gains = change.clip(lower=0.0).ewm(alpha=1.0 / 14.0, adjust=False).mean()
    losses = (-change).clip(lower=0.0).ewm(alpha=1.0 / 14.0, adjust=False).mean()
    total = gains + losses
    return (gains - losses) / total.where(total > 0.0)
