"""What one layer does to the whole: alone in a precision, and as the only one left out of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.decide.assess.outcome import accuracy_totals
from core.decide.policy.decision import NO_PRECISION
from core.decide.study import Study
from core.estimate.projection import measured, nothing_projected
from core.numerics import precision as registry
from core.quantity import Quantity

Totals = dict[str, Quantity]


@dataclass(frozen=True, slots=True)
class LayerEffect:
    """Effect of `layer` in `precision` against the reference, by name of the figure.

    `alone`: only this layer in `precision`, *measured* by simulation. `all_but`: every other
    computing layer in it and this one in the reference, *projected*. `everything`: all of them,
    which was simulated too and is the projection's fixed point. Each holds `size_bytes`,
    `latency_ms` (estimated) and the figures of accuracy; None for a layer that does nothing.
    """

    layer: str
    precision: str
    alone: Totals
    all_but: Totals
    everything: Totals


def layer_effect(study: Study, layer: str, precision: str, hardware: str) -> LayerEffect | None:
    """The effect of `layer` in `precision`; None where the layer does nothing at inference.

    Accuracy is unknown before anything was measured.
    """
    i, code = study.layers.index[layer], study.precisions.index(precision)
    if not study.layers.computes[i]:
        return None
    reference = np.where(study.layers.computes, 0, NO_PRECISION).astype(np.int8)
    whole = np.where(study.layers.computes, code, NO_PRECISION).astype(np.int8)
    only, others = reference.copy(), whole.copy()
    only[i], others[i] = code, 0
    projector = study.projector
    alone = measured(nothing_projected()) if projector is None else projector.alone(i, code)
    return LayerEffect(
        layer=layer,
        precision=precision,
        alone=_costs(study, only, hardware) | accuracy_totals(study, alone),
        all_but=_costs(study, others, hardware) | accuracy_totals(study, study.project(others)),
        everything=_costs(study, whole, hardware) | accuracy_totals(study, study.project(whole)),
    )


def _costs(study: Study, codes: np.ndarray[tuple[int], np.dtype[np.int8]], hardware: str) -> Totals:
    row = np.maximum(codes, 0)
    stored = int(study.size_bytes[row, np.arange(len(codes))].sum()) + study.glue_bytes
    return {
        "size_bytes": Quantity(stored, "bytes", "exact"),
        "latency_ms": study.latency(hardware).estimate(codes).total,
    }


def by_precision(study: Study, layer: str, hardware: str) -> dict[str, tuple[int, float]]:
    """Stored bytes (exact) and milliseconds (estimated, boundaries left out) of `layer` in every
    precision of the study.
    """
    i = study.layers.index[layer]
    model = study.latency(hardware)
    found = {}
    for code, name in enumerate(study.precisions):
        codes = np.full(len(study.layers), NO_PRECISION, dtype=np.int8)
        codes[i] = code if study.layers.computes[i] else NO_PRECISION
        found[name] = (int(study.size_bytes[code, i]), float(model.estimate(codes).layers_ms[i]))
    return found


def integer_precisions(study: Study) -> tuple[str, ...]:
    """Precisions of the study whose products are of integers, the widest first."""
    return tuple(name for name in study.precisions if registry.get(name).is_calibrated)
