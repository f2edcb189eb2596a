"""Predicted gains under roots of squares: what a layer adds depends on the map at hand.

A prediction only ranks the moves that are evaluated in full, so it looks at some answers only.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from core.estimate.loss_function import LossFunction

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]

CACHED_ELEMENTS = 40_000
"""Numbers that are worked on together: what a processor keeps close by."""
SUBSAMPLED = 1_536
SEED = 3_181
"""Outputs that a prediction looks at."""
EXACT_ELEMENTS = 700_000
"""Up to this many numbers, gains are predicted element by element, beyond it by slopes."""


class SubsampledGains:
    """Gains of single layers, from squared rises and falls of every row [P * L, K * A]."""

    def __init__(self, loss: LossFunction, rises: Floats, falls: Floats, layers: int) -> None:
        self._loss, self._rises, self._falls = loss, rises, falls
        self._layers = layers
        self._precisions = len(rises) // max(layers, 1)

    def gains(
        self, codes: NDArray[np.int8], sums: Doubles, slope: Doubles, change: Doubles
    ) -> Doubles:
        """Predicted change of the cost (P + 1, L) if a layer alone changes to each code.

        `sums` [2, K * A] are squared rises and falls at the map `codes`, `change` its change and
        `slope` the derivative of the cost there.
        """
        if len(self._rises) * len(self._columns) > EXACT_ELEMENTS:
            return self._sloped(codes, sums, slope)
        gains = np.zeros((self._precisions + 1, self._layers))
        picked, weight = self._answers
        bend = self._loss.bend(change, picked)
        steep = slope[self._columns].astype(np.float32) * np.float32(weight)
        rises, falls = sums[:, self._columns].astype(np.float32)
        now = np.sqrt(rises) - np.sqrt(falls)
        step = max(1, CACHED_ELEMENTS // max(len(self._columns), 1))
        every_up, every_down = self._squares
        active = np.flatnonzero(codes >= 0)
        for start in range(0, len(active), step):
            layers = active[start : start + step]
            held = codes[layers].astype(np.int64)
            own = (np.maximum(held, 1) - 1) * self._layers + layers
            kept = (held > 0).astype(np.float32)[:, None]
            up = np.maximum(rises - kept * every_up[own], 0)
            down = np.maximum(falls - kept * every_down[own], 0)
            for code in range(self._precisions + 1):
                if code == 0:
                    moved = np.sqrt(up) - np.sqrt(down)
                else:
                    rows = (code - 1) * self._layers + layers
                    moved = np.sqrt(up + every_up[rows])
                    moved -= np.sqrt(down + every_down[rows])
                moved -= now
                gains[code, layers] = moved @ steep + bend(moved) * weight
        return gains

    def _sloped(self, codes: NDArray[np.int8], sums: Doubles, slope: Doubles) -> Doubles:
        """First-order gains."""
        rises, falls = sums
        floor_up, floor_down = self._rises.mean() + 1e-30, self._falls.mean() + 1e-30
        up = (slope / (2 * np.sqrt(rises + floor_up))).astype(np.float32)
        down = (slope / (2 * np.sqrt(falls + floor_down))).astype(np.float32)
        gains = np.zeros((self._precisions + 1, self._layers))
        gains[1:] = (self._rises @ up - self._falls @ down).reshape(self._precisions, -1)
        current = np.maximum(codes, 0).astype(np.int64)
        return np.asarray(gains - gains[current, np.arange(self._layers)])

    @cached_property
    def _answers(self) -> tuple[NDArray[np.int64], float]:
        """Answers that are looked at, and what one of them stands for."""
        outputs, answers = self._loss.anchor.shape
        most = max(SUBSAMPLED // max(outputs, 1), 64)
        if answers <= most:
            return np.arange(answers), 1.0
        rng = np.random.default_rng(SEED)
        return np.sort(rng.choice(answers, most, replace=False)), answers / most

    @cached_property
    def _columns(self) -> NDArray[np.int64]:
        outputs, answers = self._loss.anchor.shape
        picked, _ = self._answers
        return np.asarray((np.arange(outputs)[:, None] * answers + picked).ravel())

    @cached_property
    def _squares(self) -> tuple[Floats, Floats]:
        return (
            np.ascontiguousarray(self._rises[:, self._columns]),
            np.ascontiguousarray(self._falls[:, self._columns]),
        )
