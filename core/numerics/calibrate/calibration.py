"""The range of an activation, as an analysis keeps it."""

from __future__ import annotations

from dataclasses import dataclass

from core.files import Position

OUTPUT = -1
"""The operand of an operation's output."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The observed range of one activation: operand `operand` (-1 = output) of operation
    `operation` within `layer`'s forward pass (-1 = the layer's own output).
    """

    layer: str
    operation: Position
    operand: Position
    low: float
    high: float
