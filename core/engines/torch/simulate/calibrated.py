"""The simulator with ranges that calibration has found before."""

from __future__ import annotations

from collections.abc import Iterable

from core.engines.torch.simulate.simulator import Simulator
from core.layers import LayerTable
from core.numerics.calibrate.calibration import Calibration
from core.numerics.ranges import Ranges
from core.numerics.scheme import Scheme
from core.source.contract import ModelSource
from core.source.ownership import layer_owners


def calibrated_simulator(
    source: ModelSource, layers: LayerTable, scheme: Scheme, ranges: Iterable[Calibration],
    *, expand_units: bool = False,
) -> Simulator:  # fmt: skip
    """A simulator of `source.model` under `scheme` with the activations' `ranges`."""
    owner = layer_owners(source, layers, expand_units=expand_units)
    simulator = Simulator(source.model, layers, owner, scheme, source.output)
    simulator.ranges = Ranges.stored(ranges)
    return simulator
