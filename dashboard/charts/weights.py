"""Charts of one weight tensor: where its weights lie on the integer grid, and its channels."""

from __future__ import annotations

from functools import lru_cache

import altair as alt
import numpy as np
import pandas as pd

from core.evidence.diagnose.weight_profile import BINS, WeightProfile, axis_ends
from core.numerics import precision as registry
from dashboard.charts.template import Spec, filled, named, template
from dashboard.display.theme import Mode, Theme, by_mode

HEIGHT = 190
COARSE_BITS = 5
"""Grids of up to this many bits are drawn as lines; of finer ones every bar is a level."""
MOST_CHANNELS = 600
BARS, GRID, CHANNELS = "bars", "grid", "channels"


def histogram(profile: WeightProfile, precision: str, look: Theme) -> Spec:
    """Share of the weights on every level of an 8-bit grid; the lines of a coarser `precision`."""
    low, high = axis_ends(profile)
    centres = np.linspace(low, high, BINS)
    half = (high - low) / (BINS - 1) / 2
    total = max(int(profile.counts.sum()), 1)
    bars = pd.DataFrame(
        {
            "level": np.arange(BINS) - (BINS // 2 if profile.kind == "weight" else 0),
            "start": centres - half,
            "end": centres + half,
            "weights": profile.counts,
            "share_pct": 100 * profile.counts / total,
        }
    )
    bits = registry.get(precision).bits
    steps = 2 ** (bits - 1) - 1
    levels = np.arange(-steps, steps + 1) / steps if bits <= COARSE_BITS else np.zeros(0)
    spec = _histogram(look.mode, precision, profile.kind, bool(len(levels)))
    datasets = {BARS: bars[bars["weights"] > 0]}
    if len(levels):
        datasets[GRID] = pd.DataFrame({"at": levels})
    return filled(spec, **datasets)


@lru_cache(maxsize=32)
def _histogram(mode: Mode, precision: str, kind: str, lines: bool) -> Spec:
    look = by_mode(mode)
    title = (
        "Weight ÷ largest of its output channel; one bar per 8-bit level"
        if kind == "weight"
        else "Weight; one bar per 8-bit level"
    )
    x = alt.X("start:Q", title=title, axis=alt.Axis(grid=False, tickCount=7))
    bars = (
        named(BARS)
        .mark_rect(color=look.of(precision).fill)  # a bar with two ranges would be a tick
        .encode(
            x=x,
            x2="end:Q",
            y=alt.Y("share_pct:Q", title="Weights (%)", axis=alt.Axis(tickCount=4)),
            y2=alt.Y2Datum(0),
            tooltip=[
                alt.Tooltip("level:Q", title="Level"),
                alt.Tooltip("weights:Q", title="Weights", format=",d"),
                alt.Tooltip("share_pct:Q", title="Share (%)", format=".3f"),
            ],
        )
    )
    parts = [bars]
    if lines:
        parts.append(named(GRID).mark_rule(color=look.text, opacity=0.5).encode(x="at:Q"))
    return template(alt.layer(*parts).properties(height=HEIGHT))


def channels(profile: WeightProfile, look: Theme) -> Spec:
    """The range of the weights in every output channel, the widest first; with very many, an even
    choice of them.
    """
    count = len(profile.low)
    order = np.argsort(profile.low - profile.high, kind="stable")
    place = np.arange(count)
    if count > MOST_CHANNELS:
        place = np.linspace(0, count - 1, MOST_CHANNELS).round().astype(int)
    shown = order[place]
    data = pd.DataFrame(
        {
            "place": place + 1,
            "channel": shown,
            "low": profile.low[shown],
            "high": profile.high[shown],
        }
    )
    return filled(_channels(look.mode), channels=data)


@lru_cache(maxsize=4)
def _channels(mode: Mode) -> Spec:
    look = by_mode(mode)
    chart = (
        named(CHANNELS)
        .mark_rule(color=look.muted, strokeWidth=1)
        .encode(
            x=alt.X("place:Q", title="Output channels, the widest first", axis=alt.Axis(grid=False, tickMinStep=1,
                    format=",d"), scale=alt.Scale(nice=False, padding=4)),
            y=alt.Y("low:Q", title="Smallest to largest weight", axis=alt.Axis(tickCount=4)),
            y2="high:Q",
            tooltip=[
                alt.Tooltip("channel:Q", title="Channel"),
                alt.Tooltip("low:Q", title="Smallest", format=".4f"),
                alt.Tooltip("high:Q", title="Largest", format=".4f"),
            ],
        )
    )  # fmt: skip
    return template(chart.properties(height=HEIGHT))
