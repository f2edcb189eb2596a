"""The ranges of activations that calibration saw, by where in the model they stand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from torch import Tensor

from core.errors import ModelError
from core.numerics.calibrate.calibration import OUTPUT, Calibration
from core.numerics.rounding import Range, observed

Site = tuple[str, int, int]
"""(layer, operation number within the layer's forward pass, operand); operand -1 = output."""

MODULE_OUTPUT = (-1, OUTPUT)


class Ranges(dict[Site, Range]):
    """Site -> the least and largest value seen there."""

    @classmethod
    def stored(cls, ranges: Iterable[Calibration]) -> Self:
        """The ranges that an analysis has stored."""
        return cls({(r.layer, r.operation, r.operand): Range(r.low, r.high) for r in ranges})

    def to_store(self) -> tuple[Calibration, ...]:
        """The ranges as an analysis stores them, in the order of their sites."""
        return tuple(Calibration(*site, seen.low, seen.high) for site, seen in sorted(self.items()))

    def observe(self, site: Site, value: Tensor) -> None:
        """Widen the range of `site` to hold `value`."""
        seen = observed(value)
        known = self.get(site)
        self[site] = seen if known is None else known.merge(seen)

    def of(self, site: Site) -> Range:
        """The range of `site`; raises `ModelError` where no calibration sample came by."""
        if site not in self:
            raise ModelError(
                f"Layer {site[0]!r} ran an operation that no calibration sample reached.",
                "Give calibration inputs that take the same branches as the evaluation inputs.",
            )
        return self[site]
