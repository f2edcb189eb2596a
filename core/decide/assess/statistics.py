"""Counts of a map, in the document's terms and in honest ones.

The document counts dropout, which does nothing at inference; that flatters the share of
quantizable layers, so both counts are given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.decide.policy.decision import PrecisionMap
from core.decide.policy.scoring import HIGH, LEVELS, LOW, MEDIUM


@dataclass(frozen=True, slots=True)
class LevelCount:
    """Layers at one level and their share of all layers counted, in percent."""

    level: str
    layers: int
    share_pct: float | None


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts over all layers (`document_*`, the document's way) and over layers that compute."""

    layers: int
    computing_layers: int
    levels: tuple[LevelCount, ...]
    computing_levels: tuple[LevelCount, ...]
    quantizable_pct: float | None
    computing_quantizable_pct: float | None
    precisions: dict[str, int]
    document_precisions: dict[str, int]
    params_share_pct: dict[str, float]
    pinned: int
    overridden: int


def _counts(levels: np.ndarray, total: int) -> tuple[LevelCount, ...]:
    return tuple(
        LevelCount(
            LEVELS[level],
            int((levels == level).sum()),
            100 * float((levels == level).sum()) / total if total else None,
        )
        for level in (HIGH, MEDIUM, LOW)
    )


def _quantizable(levels: np.ndarray, total: int) -> float | None:
    return 100 * float((levels < HIGH).sum()) / total if total else None


def statistics(precision_map: PrecisionMap) -> Statistics:
    """Both counts of a map. Shares of an empty model are None."""
    layers = precision_map.layers
    computes = layers.computes
    total, computing = len(layers), int(computes.sum())
    params = int(layers.params.sum())
    document = [precision_map.document_precision(i) for i in range(total)]
    shares = {
        name: 100 * float(layers.params[precision_map.codes == code].sum()) / params
        for code, name in enumerate(precision_map.precisions)
        if params
    }
    return Statistics(
        layers=total,
        computing_layers=computing,
        levels=_counts(precision_map.levels, total),
        computing_levels=_counts(precision_map.levels[computes], computing),
        quantizable_pct=_quantizable(precision_map.levels, total),
        computing_quantizable_pct=_quantizable(precision_map.levels[computes], computing),
        precisions={name: precision_map.count(name) for name in precision_map.precisions},
        document_precisions={name: document.count(name) for name in ("FP16", "INT8")},
        params_share_pct=shares,
        pinned=int((precision_map.origin == 1).sum()),
        overridden=int((precision_map.origin == 2).sum()),
    )
