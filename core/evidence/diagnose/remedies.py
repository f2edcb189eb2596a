"""Why a layer errs and what would help, measured on its own output, one remedy at a time.

Every variant rounds one layer alone, with the reference's inputs, on one batch of calibration
samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from core.engines.torch.simulate.simulator import Assignment
from core.engines.torch.simulate.stored_weights import StoredTensors
from core.evidence.diagnose.activations import BINS, ActivationStatistics, Channels, equalised
from core.evidence.diagnose.own_output import OwnOutputs, error_of
from core.evidence.layer_alone import VARIANTS
from core.layers import Layer, LayerTable
from core.numerics.activation_grids import grid_of
from core.numerics.precision import Precision
from core.numerics.ranges import OUTPUT, Ranges, Site
from core.numerics.rounding import Range, weight_scales
from core.numerics.scheme import Scheme
from core.source.batches import Inputs
from core.source.operations import Operation, operand, replace_operand

Doubles = NDArray[np.float64]


class ExactWeights(StoredTensors):
    """Weights that no integer precision rounds, with the scales that it would give them."""

    def integers(
        self, weight: Tensor, operation: Operation, precision: Precision
    ) -> tuple[Tensor, Tensor]:
        """The weight as it is."""
        if operation.kind == "embedding":
            return weight.detach(), torch.ones(1)
        return weight.detach(), weight_scales(weight, precision.bits, operation.out_channel_axis)


class Variants(OwnOutputs):
    """A simulator of single layers that can leave parts of the rounding out or do it otherwise."""

    _kind = ""
    _weight: Tensor | None = None
    _equal: Mapping[Site, Channels] = {}
    _usual: tuple[set[str], Scheme, StoredTensors, Ranges] | None = None

    def look(self, inputs: Inputs) -> dict[Site, ActivationStatistics]:
        """What every activation holds, against the ranges in use."""
        self._known = Ranges(self.ranges)
        self._seen: dict[Site, ActivationStatistics] = {}
        try:
            self.calibrate(inputs)
        finally:
            self.ranges = self._known
        return self._seen

    def _record(
        self, name: str, number: int, operation: Operation, func: Callable[..., Any],
        args: tuple[Any, ...], kwargs: dict[str, Any],
    ) -> Any:  # fmt: skip
        self._kind, self._weight = operation.kind, None
        if func is F.linear:
            self._weight = operand((1, "weight"), args, kwargs)
        try:
            return super()._record(name, number, operation, func, args, kwargs)
        finally:
            self._kind, self._weight = "", None

    def _observe(self, site: Site, value: Tensor) -> None:
        whole = self._known.get(site)
        if whole is None or value.numel() == 0:
            return
        found = self._seen.setdefault(
            site, ActivationStatistics(torch.zeros(BINS, dtype=torch.float64, device=value.device))
        )
        finite = value[torch.isfinite(value)]
        inside = finite.clamp(whole.low, whole.high)
        found.clipped += float((finite - inside).double().square().sum())
        found.values += finite.numel()
        if whole.high > whole.low:
            found.counts += torch.histc(inside, BINS, whole.low, whole.high).double()
        axis = 1 if self._kind == "conv" else -1
        if site[2] == OUTPUT or value.ndim < 2 or not torch.isfinite(value).all():
            return
        rows = value.transpose(axis, -1).reshape(-1, value.shape[axis])
        low, high = rows.amin(0), rows.amax(0)
        if found.low is not None and found.high is not None and found.low.shape == low.shape:
            low, high = torch.minimum(low, found.low), torch.maximum(high, found.high)
        found.low, found.high = low, high
        if self._weight is not None and self._weight.ndim == 2:
            found.weight = self._weight.detach().abs().amax(0)

    def set(
        self, *, weights: bool = True, activations: bool = True,
        ranges: Mapping[Site, Range] | None = None, equal: Mapping[Site, Channels] | None = None,
    ) -> None:  # fmt: skip
        """Choose what the next runs round, and how."""
        if self._usual is None:
            self._usual = (self._weight_only, self.scheme, self._stored_tensors, self.ranges)
        weight_only, scheme, held, known = self._usual
        self._weight_only = weight_only if activations else set(self._layers)
        self.scheme = scheme if activations else replace(scheme, rounds_outputs=())
        self._stored_tensors = held if weights else ExactWeights(self._stored, scheme)
        self._equal = dict(equal or {})
        spans = {site: channels.span for site, channels in self._equal.items()}
        self.ranges = Ranges({**known, **(ranges or {}), **spans})

    def _integer_operation(
        self, name: str, number: int, operation: Operation, precision: Precision,
        func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any],
    ) -> Any:  # fmt: skip
        channels = self._equal.get((name, number, 0)) if func is F.linear else None
        value, weight = operand((0, "input"), args, kwargs), operand((1, "weight"), args, kwargs)
        if channels is not None and value is not None and weight is not None:
            given, named = list(args), dict(kwargs)
            replace_operand((0, "input"), value / channels.factors, given, named)
            replace_operand((1, "weight"), weight.detach() * channels.factors, given, named)
            args, kwargs = tuple(given), named
        return super()._integer_operation(name, number, operation, precision, func, args, kwargs)


LayerProgress = Callable[[int, str], None]
"""Called with a layer's place and name before it is looked at."""


@dataclass(eq=False)
class RemedyResult:
    """Arrays by name, filled layer by layer; NaN = unknown."""

    sqnr_db: Doubles  # [V, L]
    outliers: Doubles  # [L]
    imbalance: Doubles  # [L]
    clipping: Doubles  # [L]
    peak: Doubles  # [L]
    underflow: Doubles  # [L]


def examine(
    simulator: Variants, layers: LayerTable, integer: Precision, half: Precision | None,
    calibration: Inputs, batch: Inputs, selection: Inputs,
    progress: LayerProgress = lambda place, name: None,
) -> RemedyResult:  # fmt: skip
    """Measure every computing layer under every variant on `batch`.

    What activations hold is seen on `calibration`, and what falls outside their calibrated range
    on `selection` samples. The simulator rounds as usual afterwards.
    """
    count = len(layers)
    unknown = [np.full(count, np.nan) for _ in range(5)]
    found = RemedyResult(np.full((len(VARIANTS), count), np.nan), *unknown)
    seen, outside = simulator.look(calibration), simulator.look(selection)
    inner = {site: one.inner(simulator.ranges[site]) for site, one in seen.items()}
    equal = equalised(seen)
    _activations(found, layers, simulator.ranges, seen, inner, outside, simulator.scheme)
    simulator.set()
    reference = simulator.reference(batch)
    for i, layer in enumerate(layers):
        progress(i, layer.name)
        before = reference.get(layer.name)
        if not before or not layer.computes_at_inference:
            continue  # it gives no tensor that could be looked at
        values = torch.cat([one.flatten() for one in before])
        found.peak[i] = float(values.abs().max()) if values.numel() else 0.0
        found.underflow[i] = _underflow(values)
        own = {site for site in seen if site[0] == layer.name}
        for v, options in enumerate(_options(layer, own, inner, equal)):
            if options is None:
                continue
            simulator.set(**options)
            found.sqnr_db[v, i] = _sqnr(simulator, layer, {layer.name: integer}, batch, before)
        simulator.set()
        if half is not None:
            found.sqnr_db[-1, i] = _sqnr(simulator, layer, {layer.name: half}, batch, before)
    return found


def _options(
    layer: Layer, own: set[Site], inner: Mapping[Site, Range], equal: Mapping[Site, Channels]
) -> list[dict[str, Any] | None]:
    """How to set the simulator for each of the integer variants; None where it means nothing."""
    weighted = any(spec.kind in {"weight", "table"} for spec in layer.tensors)
    parts = weighted and any(site[1] >= 0 for site in own)  # a product's, not a norm's
    mine = {site: equal[site] for site in own if site in equal}
    return [
        {},
        {"activations": False} if parts else None,
        {"weights": False} if parts else None,
        {"ranges": {site: inner[site] for site in own}} if own else None,
        {"equal": mine} if mine else None,
    ]


def _sqnr(
    simulator: OwnOutputs, layer: Layer, assignment: Assignment, batch: Inputs,
    before: list[Tensor],
) -> float:  # fmt: skip
    """10 log10(sum y^2 / sum dy^2) of the layer's own output in dB; NaN where it cannot be seen."""
    errors = error_of(simulator.of(layer.name, assignment, batch), before)
    if errors is None:
        return math.nan
    signal = sum(float(one.double().square().sum()) for one in before)
    noise = sum(float(one.double().square().sum()) for one in errors)
    if not math.isfinite(noise):
        return -math.inf
    return 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else math.inf


def _underflow(values: Tensor) -> float:
    """Share of the values other than 0 that FP16 cannot hold with its full precision."""
    some = values[values != 0].abs()
    if not some.numel():
        return 0.0
    return float((some < torch.finfo(torch.float16).tiny).double().mean())


def _activations(
    found: RemedyResult, layers: LayerTable, ranges: Mapping[Site, Range], seen: Mapping[Site, ActivationStatistics],
    inner: Mapping[Site, Range], outside: Mapping[Site, ActivationStatistics], scheme: Scheme,
) -> None:  # fmt: skip
    """The worst of each layer's activations, by each measure."""
    for site, one in seen.items():
        i = layers.index.get(site[0])
        if i is None:
            continue
        whole, core = ranges[site], inner[site]
        width = max(whole.high, 0.0) - min(whole.low, 0.0)
        inside = max(core.high, 0.0) - min(core.low, 0.0)
        if inside > 0:
            found.outliers[i] = np.fmax(found.outliers[i], width / inside)
        if one.low is not None and one.high is not None:
            largest = torch.maximum(one.low.abs(), one.high.abs())
            middle = float(largest.median())
            if middle > 0 and len(largest) > 1:
                found.imbalance[i] = np.fmax(found.imbalance[i], float(largest.max()) / middle)
        other = outside.get(site)
        if other is not None and other.values:
            step = grid_of(whole, scheme).scale
            rounding = other.values * step**2 / 12
            share = other.clipped / (other.clipped + rounding) if other.clipped else 0.0
            found.clipping[i] = np.fmax(found.clipping[i], share)
