"""Estimated latency of a map from what its layers took on this machine.

The sum of the layers' measured times in their precisions, the price of every conversion on an
edge between two forms, the casts around a layer in half precision, and what belongs to no layer,
which is shared out in proportion to the layers' times in the reference, so that layers and
conversions add up to the whole.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.estimate.hardware import Hardware
from core.estimate.latency import MS_PER_S, LatencyModel
from core.estimate.trials import Z90
from core.layers import LayerTable
from core.numerics import precision as registry
from core.records.machine_profile import MachineProfile


class MeasuredLatency(LatencyModel):
    """A latency model whose prices were measured; forms and boundaries are those of `hardware`."""

    def __init__(
        self, layers: LayerTable, sizes: NDArray[np.int64], precisions: tuple[str, ...],
        hardware: Hardware, profile: MachineProfile,
    ) -> None:  # fmt: skip
        super().__init__(layers, sizes, precisions, hardware)
        reference = profile.precisions.index(registry.REFERENCE)
        rows = [
            profile.layer_ms[profile.precisions.index(name) if name in profile.precisions
                             else reference]
            for name in precisions
        ]  # fmt: skip
        own = np.array(rows, dtype=np.float64)
        base = np.array(profile.layer_ms[reference], dtype=np.float64)
        floor = base.sum() * 1e-3 or 1.0  # times that explain nothing of whole runs: equal shares
        share = np.where(layers.computes, np.maximum(base, floor), 0.0)
        own = own + profile.rest_ms * share / max(float(share.sum()), 1e-30)
        values = np.array([x.input_elements + x.output_elements for x in layers])
        casts = profile.half.fixed_ms + profile.half.per_element_ms * values
        is_half = [registry.get(n).is_cast and n != registry.REFERENCE for n in precisions]
        own[is_half] += casts
        own[:, ~layers.computes] = 0.0
        factor = float(np.exp(Z90 * profile.spread))
        self._fixed_s = np.zeros_like(own)
        self._work_s = {
            "low": own * factor / MS_PER_S,  # low efficiency: it takes longer
            "typical": own / MS_PER_S,
            "high": own / factor / MS_PER_S,
        }
        self._own_s = own / MS_PER_S
        elements = np.array([e.elements for e in layers.edges], dtype=np.float64)
        price = profile.quantized
        self._boundary_s = (price.fixed_ms + price.per_element_ms * elements) / MS_PER_S
