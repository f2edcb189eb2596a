"""How a model is measured, as a person can choose it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from core.numerics import precision as registry
from core.numerics import quantizers
from core.numerics.calibrate.calibrators import MIN_MAX, Calibrator
from core.numerics.precision import Precision
from core.numerics.quantizers import Quantizer
from core.numerics.scheme import ORT_CPU, Scheme

PROBES = 12
FIRST_LOOK = 16
"""Samples of the first batch, drawn at random."""
Until = Literal["first look", "ranked", "exact"]
"""How far to measure: a few samples; until the ranking of layers is settled; all samples."""


def _first_visit() -> tuple[Precision, ...]:
    """What is measured where nothing else is asked for."""
    return tuple(registry.get(name) for name in registry.FIRST_VISIT)


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """Whose integers are simulated, and what is run.

    `precisions` are those that each layer is put into, by default those of a first visit; weights by
    groups lie on the grid of `quantizer`.
    `expand_units` takes declared units apart. `probes` is the number of mixed maps that are run to
    learn how far projections err. `memory_bytes` bounds the memory that all processes together take
    beside what Python, the model and its data hold (None: half of what is free) and `jobs` is their number; neither changes what is measured.
    `until` says how many of the selection samples are.
    """

    scheme: Scheme = ORT_CPU
    calibrator: Calibrator = MIN_MAX
    quantizer: Quantizer = quantizers.DEFAULT
    precisions: tuple[Precision, ...] = field(default_factory=_first_visit)
    expand_units: bool = False
    probes: int = PROBES
    memory_bytes: int | None = None
    jobs: int = 1
    until: Until = "exact"

    def __post_init__(self) -> None:
        on_its_grid = tuple(self.quantizer.of(one) for one in self.precisions)
        object.__setattr__(self, "precisions", on_its_grid)
