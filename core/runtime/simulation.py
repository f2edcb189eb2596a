"""The simulator with the ranges that an analysis has stored, as a map is held against it."""

from __future__ import annotations

from core.analysis.analysis import Analysis
from core.engines.torch.simulate.calibrated import calibrated_simulator
from core.engines.torch.simulate.simulator import Simulator
from core.source.contract import ModelSource


def stored_simulator(source: ModelSource, analysis: Analysis) -> Simulator:
    """A simulator of `source.model` that rounds as `analysis` was measured, on its ranges."""
    return calibrated_simulator(
        source, analysis.layers, analysis.rounding, analysis.ranges,
        expand_units=analysis.expanded_units,
    )  # fmt: skip
