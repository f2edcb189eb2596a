"""The engine with the ranges that an analysis has stored, as a map is held against it."""

from __future__ import annotations

from core.analysis.analysis import Analysis
from core.engines.engine import Engine
from core.engines.engines import calibrated_engine
from core.source.contract import ModelSource


def stored_simulator(source: ModelSource, analysis: Analysis) -> Engine:
    """The engine of `source.model` that rounds as `analysis` was measured, on its ranges."""
    return calibrated_engine(
        source, analysis.layers, analysis.rounding, analysis.ranges,
        expand_units=analysis.expanded_units,
    )  # fmt: skip
