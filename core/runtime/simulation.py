"""The simulator with the ranges that an analysis has stored, as a map is held against it."""

from __future__ import annotations

from core.analysis.analysis import Analysis
from core.engines.torch.simulate.simulator import Simulator
from core.numerics.ranges import Ranges
from core.numerics.rounding import Range
from core.source.contract import ModelSource
from core.source.ownership import layer_owners


def stored_simulator(source: ModelSource, analysis: Analysis) -> Simulator:
    """A simulator of `source.model` that rounds as `analysis` was measured, on its ranges."""
    owner = layer_owners(source, analysis.layers, expand_units=analysis.expanded_units)
    simulator = Simulator(source.model, analysis.layers, owner, analysis.rounding, source.output)
    simulator.ranges = Ranges(
        {(r.layer, r.operation, r.operand): Range(r.low, r.high) for r in analysis.ranges}
    )
    return simulator
