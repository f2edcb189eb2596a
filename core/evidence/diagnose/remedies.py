"""Why a layer errs and what would help, measured on its own output, one remedy at a time.

Every variant rounds one layer alone, with the reference's inputs, on one batch of calibration
samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.engines.variant import AS_USUAL, Variant
from core.evidence.diagnose.activations import (
    ActivationStatistics,
    Channels,
    activation_statistics,
    equalised,
)
from core.evidence.diagnose.own_output import LayerOutputs, Outputs, error_of
from core.evidence.layer_alone import CLIPPED, VARIANTS
from core.evidence.measure.run_cache import LayerCache
from core.layers import Layer, LayerTable
from core.numerics.activation_grids import grid_of
from core.numerics.precision import Precision
from core.numerics.ranges import Site
from core.numerics.rounding import Range
from core.numerics.scheme import Scheme
from core.source.batches import Inputs, count, take

Doubles = NDArray[np.float64]


ACTIVATIONS = "activations"
LayerProgress = Callable[[int, str], None]
"""Called with a layer's place and name before it is looked at."""


@dataclass(frozen=True, eq=False)
class RemedyResult:
    """Arrays by name; NaN = unknown."""

    sqnr_db: Doubles  # [V, L]
    outliers: Doubles  # [L]
    imbalance: Doubles  # [L]
    clipping: Doubles  # [L]
    clipping_gain_db: Doubles  # [L]
    peak: Doubles  # [L]
    underflow: Doubles  # [L]


def examine(
    own: LayerOutputs, layers: LayerTable, integer: Precision, half: Precision | None,
    calibration: Inputs, batch: Inputs, selection: Inputs, progress: LayerProgress,
    kept: LayerCache,
) -> RemedyResult:  # fmt: skip
    """Measure every computing layer under every variant on `batch`.

    What activations hold is seen on `calibration`, and what falls outside their calibrated range
    on `selection` samples, as many as `batch` has for what that does to an output. What is `kept`
    is not looked at again.
    """
    rows = [f"remedies {name} {integer} {half}" for name in layers.names]
    known = [kept.get(row, (len(VARIANTS) + 2,)) for row in rows]
    activations, look = kept.get(ACTIVATIONS, (4, len(layers))), None
    if activations is None or any(one is None for one in known):
        seen = activation_statistics(own, calibration)
        inner = {site: one.inner(own.ranges[site]) for site, one in seen.items()}
        if activations is None:
            outside = activation_statistics(own, selection)
            activations = _activations(layers, own.ranges, seen, inner, outside, own.scheme)
            few = take(selection, 0, count(batch))
            gains = _clipping_gains(own, layers, integer, few, outside, activations[-1])
            activations = np.vstack([activations, gains])
            kept.keep(ACTIVATIONS, activations)
        look = _Look(own, integer, half, batch, own.reference(batch), inner, equalised(seen))
    table = np.full((len(VARIANTS) + 2, len(layers)), np.nan)
    for i, layer in enumerate(layers):
        progress(i, layer.name)
        found = known[i]
        if found is None and look is not None:
            found = look.at(layer)
            kept.keep(rows[i], found)
        table[:, i] = found
    return RemedyResult(table[:-2], *activations, *table[-2:])


@dataclass(frozen=True, eq=False)
class _Look:
    """What looking at one layer takes: its own output as it is, and the ranges of the remedies."""

    own: LayerOutputs
    integer: Precision
    half: Precision | None
    batch: Inputs
    reference: Outputs
    inner: Mapping[Site, Range]
    equal: Mapping[Site, Channels]

    def at(self, layer: Layer) -> Doubles:
        """SQNR under each of `VARIANTS`, then peak and underflow of the output; NaN = unknown."""
        found = np.full(len(VARIANTS) + 2, np.nan)
        before = self.reference.get(layer.name)
        if not before or not layer.computes_at_inference:
            return found  # it gives no tensor that could be looked at
        values = torch.cat([one.flatten() for one in before])
        found[-2] = float(values.abs().max()) if values.numel() else 0.0
        found[-1] = _underflow(values)
        sites = {site for site in self.inner if site[0] == layer.name}
        for v, variant in enumerate(_variants(layer, sites, self.inner, self.equal)):
            if variant is not None:
                after = self.own.of(layer.name, self.integer, self.batch, variant)
                found[v] = _sqnr(before, after)
        if self.half is not None:
            found[len(VARIANTS) - 1] = _sqnr(before, self.own.of(layer.name, self.half, self.batch))
        return found


def _variants(
    layer: Layer, own: set[Site], inner: Mapping[Site, Range], equal: Mapping[Site, Channels]
) -> list[Variant | None]:
    """The variants in integers, in the order of `VARIANTS`; None where one means nothing."""
    weighted = any(spec.on_grid for spec in layer.tensors)
    parts = weighted and any(site[1] >= 0 for site in own)  # a product's, not a norm's
    mine = {site: equal[site] for site in own if site in equal}
    spans = {site: channels.span for site, channels in mine.items()}
    factors = {site: channels.factors for site, channels in mine.items()}
    return [
        AS_USUAL,
        Variant(activations=False) if parts else None,
        Variant(weights=False) if parts else None,
        Variant(ranges={site: inner[site] for site in own}) if own else None,
        Variant(ranges=spans, factors=factors) if mine else None,
    ]


def _sqnr(before: list[Tensor], after: list[Tensor]) -> float:
    """10 log10(sum y^2 / sum dy^2) of a layer's own output in dB; NaN where it cannot be seen."""
    errors = error_of(after, before)
    if errors is None:
        return math.nan
    signal = sum(float(one.double().square().sum()) for one in before)
    noise = sum(float(one.double().square().sum()) for one in errors)
    if not math.isfinite(noise):
        return -math.inf
    return 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else math.inf


def _underflow(values: Tensor) -> float:
    """Share of the values other than 0 that FP16 cannot hold with its full precision."""
    some, small = values != 0, values.abs() < torch.finfo(torch.float16).tiny
    count = int(some.sum())
    return int((some & small).sum()) / count if count else 0.0


def _clipping_gains(
    own: LayerOutputs, layers: LayerTable, integer: Precision, selection: Inputs,
    outside: Mapping[Site, ActivationStatistics], clipping: Doubles,
) -> Doubles:  # fmt: skip
    """What SQNR on `selection` gains with ranges that hold all of it, [L], for each layer much of
    whose error is `clipping`; NaN for others, and where it is unknown.
    """
    gains = np.full(len(layers), np.nan)
    clipped = [layer for layer in layers if clipping[layers.index[layer.name]] >= CLIPPED]
    reference = own.reference(selection) if clipped else {}
    for layer in clipped:
        before = reference.get(layer.name)
        if not before or not layer.computes_at_inference:
            continue
        wide = {
            site: one.seen for site, one in outside.items() if site[0] == layer.name and one.seen
        }
        with_all = _sqnr(before, own.of(layer.name, integer, selection, Variant(ranges=wide)))
        gain = with_all - _sqnr(before, own.of(layer.name, integer, selection))
        gains[layers.index[layer.name]] = gain  # NaN where both are infinite
    return gains


def _activations(
    layers: LayerTable, ranges: Mapping[Site, Range], seen: Mapping[Site, ActivationStatistics],
    inner: Mapping[Site, Range], outside: Mapping[Site, ActivationStatistics], scheme: Scheme,
) -> Doubles:  # fmt: skip
    """The worst of each layer's activations by each measure, [3, L]: outliers, imbalance, clipping."""
    found = np.full((3, len(layers)), np.nan)
    outliers, imbalance, clipping = found
    for site, one in seen.items():
        i = layers.index.get(site[0])
        if i is None:
            continue
        whole, core = ranges[site], inner[site]
        width = max(whole.high, 0.0) - min(whole.low, 0.0)
        inside = max(core.high, 0.0) - min(core.low, 0.0)
        if inside > 0:
            outliers[i] = np.fmax(outliers[i], width / inside)
        if one.low is not None and one.high is not None:
            largest = torch.maximum(one.low.abs(), one.high.abs())
            middle = float(largest.median())
            if middle > 0 and len(largest) > 1:
                imbalance[i] = np.fmax(imbalance[i], float(largest.max()) / middle)
        other = outside.get(site)
        if other is not None and other.values:
            step = grid_of(whole, scheme).scale
            rounding = other.values * step**2 / 12
            share = other.clipped / (other.clipped + rounding) if other.clipped else 0.0
            clipping[i] = np.fmax(clipping[i], share)
    return found
