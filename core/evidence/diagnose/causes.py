"""Why a layer is sensitive, and what would help: from what was measured of its own output.

A remedy's gain is measured: the SQNR of the layer's own output with the remedy less that without.
Weights have one scale per output channel already, so that remedy is taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from core.evidence.evidence import Evidence
from core.evidence.layer_alone import CLIPPED, VARIANTS, LocalStatistics
from core.evidence.scorers.contract import SQNR_HARMLESS_DB

HALF_MAX = 65504.0
"""The largest number of FP16."""
OUTLIER_RANGE = 2.0
"""Activations whose range is this many times that of 99.9 % of them have outliers: half of the
levels, one bit, serve a thousandth of the values."""
OUTLIER_KURTOSIS = 6.0
"""That of a Laplace distribution; a normal one has 3."""
IMBALANCE = 8.0
"""The median channel has this many times fewer levels than the widest: three bits."""
UNDERFLOW_SHARE = 0.01
HALVING_DB = 3.0
"""Gain in dB that halves a squared error: 10 log10(2)."""
WORTHWHILE_DB = 1.0

REMEDIES = {
    "percentile": "Ranges that hold 99.9 % of the values, in place of all",
    "equalised": "Equalise its input channels (SmoothQuant)",
    "unclipped": "Ranges that hold the selection samples too",
    "weights": "Round its weights alone, activations in float",
    "activations": "Round its activations alone, weights in float",
    "half": "Keep it in FP16",
}
"""What is a remedy, in words; the first three keep all of it in integers."""
TO_HALF = {"half": "FP16"}
"""Remedies that are another precision, with its name."""
IN_INTEGERS = ("percentile", "equalised", "unclipped")


@dataclass(frozen=True, slots=True)
class Remedy:
    """What would help. `gain_db` is measured at the layer's own output; below 0 = it harms,
    infinity = no error is left.
    """

    name: str
    gain_db: float

    @property
    def title(self) -> str:
        """The remedy in words."""
        return REMEDIES[self.name]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a layer errs in the narrowest precision.

    `sqnr_db` is that of its own output (measured). `weight_share` is the share of the squared
    error that its weights cause, None where it cannot be told. `half` says what FP16 would do to
    it, empty where nothing is wrong. `remedies` are all that were measured, the largest gain
    first.
    """

    cause: str
    sentence: str
    sqnr_db: float
    weight_share: float | None
    half: str
    remedies: tuple[Remedy, ...]

    @property
    def advice(self) -> str:
        """The remedy to try first: the one that gains most. Of those that keep it in integers the
        one that gains most is named after it.
        """
        if self.cause == "none":
            return ""
        worth = [r for r in self.remedies if r.gain_db >= WORTHWHILE_DB]
        if not worth:
            return "Nothing that was measured helps by 1 dB or more."
        whole = next((r for r in worth if r.name in IN_INTEGERS), worth[0])
        more = "" if whole is worth[0] else f"; in integers: {_said(whole)}"
        return f"First to try: {_said(worth[0])}{more}."


def _said(remedy: Remedy) -> str:
    gain = "no error is left" if math.isinf(remedy.gain_db) else f"{remedy.gain_db:+.1f} dB"
    return f"{remedy.title[0].lower()}{remedy.title[1:]} ({gain}, measured)"


def diagnose(evidence: Evidence, layer: int) -> Diagnosis | None:
    """The main cause of the error of `layer`; None where its own output was not measured."""
    local = evidence.local
    if local is None or local.sqnr_db is None or np.isnan(local.sqnr_db[0, layer]):
        return None
    db = dict(zip(VARIANTS, (float(x) for x in local.sqnr_db[:, layer]), strict=True))
    base = db["integer"]
    share = _weight_share(db, local, layer)
    gains = {
        name: db[name] - base
        for name in REMEDIES
        if name in db and not math.isnan(db[name]) and not (math.isinf(base) and db[name] == base)
    }
    unclipped = _value(local, "clipping_gain_db", layer)
    if not math.isnan(unclipped):
        gains["unclipped"] = unclipped
    cause, why = _cause(local, layer, base, share, gains)
    said = f"Own output at {base:.1f} dB: {why}" if math.isfinite(base) else why
    found = [Remedy(name, gain) for name, gain in gains.items()]
    found.sort(key=lambda remedy: -remedy.gain_db)
    return Diagnosis(cause, said, base, share, _half(evidence, local, layer), tuple(found))


def _value(local: LocalStatistics, name: str, layer: int) -> float:
    """One statistic of a layer; NaN where it is not known."""
    array = getattr(local, name)
    return math.nan if array is None else float(array[layer])


def _weight_share(db: dict[str, float], local: LocalStatistics, layer: int) -> float | None:
    noise = {name: 10 ** (-db[name] / 10) for name in ("weights", "activations")}
    total = sum(noise.values())
    if math.isnan(total):
        kurtosis = _value(local, "weight_kurtosis", layer)
        alone = math.isnan(_value(local, "activation_outliers", layer))
        if kurtosis > 0 and not alone:
            return None
        return 1.0 if kurtosis > 0 else 0.0
    return noise["weights"] / total if 0 < total < math.inf else None


def _cause(
    local: LocalStatistics, layer: int, base: float, share: float | None, gains: dict[str, float]
) -> tuple[str, str]:
    """The main cause and why, in words.

    Of the causes that have a measured remedy it is the one whose remedy gains most, if that halves
    the squared error. One whose remedy does less is denied. Statistics name a cause without one.
    """
    if base == -math.inf:
        return "overflow", "its output is not finite in the narrowest precision."
    if base >= SQNR_HARMLESS_DB:
        return "none", "its rounding error is harmless."
    who = (
        "what rounds it cannot be told apart"
        if share is None
        else f"{share:.0%} of the squared error comes from its weights"
        if share >= 0.5
        else f"{1 - share:.0%} of the squared error comes from its activations"
    )
    suspects = _suspects(local, layer, share)
    mended = {name: gains[name] for name in suspects if gains.get(name, 0.0) >= HALVING_DB}
    blamed = [max(mended, key=mended.__getitem__)] if mended else []
    blamed += [name for name, s in suspects.items() if s.is_met and name not in gains]
    if blamed:
        return suspects[blamed[0]].cause, f"{who}; {suspects[blamed[0]].why}"
    plain = (
        "rounding" if share is None else f"{'weight' if share >= 0.5 else 'activation'} rounding"
    )
    return plain, f"{who}, by plain rounding."


@dataclass(frozen=True, slots=True)
class _Suspect:
    """A cause that may be at work; `is_met` by its own statistic."""

    cause: str
    is_met: bool
    why: str


def _suspects(local: LocalStatistics, layer: int, share: float | None) -> dict[str, _Suspect]:
    """What may cause more than plain rounding does, by the remedy that tells; those of weights or
    of activations only where these cause half of the error, or may do so, if no remedy tells.
    """
    kurtosis = _value(local, "weight_kurtosis", layer)
    clipping = _value(local, "clipping", layer)
    outliers = _value(local, "activation_outliers", layer)
    imbalance = _value(local, "activation_imbalance", layer)
    by_weights = share is not None and share >= 0.5
    return {
        "": _Suspect(
            "weight outliers", by_weights and kurtosis >= OUTLIER_KURTOSIS,
            f"a few large ones stretch the grid (kurtosis {kurtosis:.1f}; 3 for a normal "
            "distribution).",
        ),
        "equalised": _Suspect(
            "channel imbalance", not by_weights and imbalance >= IMBALANCE,
            f"its input channels share one grid, the widest {imbalance:.3g}× as wide as the median "
            "one.",
        ),
        "percentile": _Suspect(
            "activation outliers", not by_weights and outliers >= OUTLIER_RANGE,
            f"a few large values stretch the range to {outliers:.1f}× what holds 99.9 % of them.",
        ),
        "unclipped": _Suspect(
            "clipping", not by_weights and clipping >= CLIPPED,
            f"on selection samples {clipping:.0%} of that is clipping, values outside the "
            "calibrated range.",
        ),
    }  # fmt: skip


def _half(evidence: Evidence, local: LocalStatistics, layer: int) -> str:
    at = evidence.position("FP16")
    peak = _value(local, "output_peak", layer)
    if (at is not None and not evidence.allowed[at, layer]) or peak > HALF_MAX:
        return (
            f"FP16 overflows: outputs reach {peak:.3g}, and FP16 ends at {HALF_MAX:,.0f}."
            if peak > HALF_MAX
            else "FP16 overflows: the model's outputs were not finite."
        )
    below = _value(local, "output_underflow", layer)
    if below >= UNDERFLOW_SHARE:
        return (
            f"FP16 underflows: {below:.0%} of its output values lie below 6.1e-5, the smallest "
            "normal number."
        )
    return ""
