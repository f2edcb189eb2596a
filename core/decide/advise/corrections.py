"""What verified maps teach: how far projections were off, and a correction where it helps.

A correction is a line through log(measured) over log(projected), fitted by least squares and
judged by leaving each map out in turn. It is offered only where it errs less on maps that it has
not seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.decide.assess.loss import loss_figures
from core.decide.assess.outcome import accuracy_totals
from core.decide.assess.verified import ran_codes
from core.decide.study import Study
from core.estimate.hardware import THIS_MACHINE
from core.estimate.trials import Z90
from core.quantity import Quantity
from core.records.verification import Verification

ENOUGH = 8
"""Verified maps from which on a correction is fitted."""
FEW = 3
TINY = 1e-12

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Residual:
    """One verified map. `projected` are the figures of what ran, by the names of totals;
    `estimated_ms` is the latency on this machine (unknown without a profile).
    """

    verification: Verification
    projected: dict[str, Quantity]
    estimated_ms: Quantity

    def measured(self, name: str) -> Quantity | None:
        """What was measured on the samples that the projection is of."""
        return self.verification.same_samples.get(name)

    def inside(self, name: str) -> bool | None:
        """Whether the measured figure lies in the projected range; None where one is unknown."""
        measured, range_ = self.measured(name), self.projected.get(name)
        if measured is None or range_ is None or measured.value is None:
            return None
        if range_.low is None or range_.high is None:
            return None
        return range_.low <= measured.value <= range_.high

    def log_error(self, name: str) -> float | None:
        """log(measured / projected) of a positive figure; None where one is unknown or 0."""
        measured, projected = self.measured(name), self.projected.get(name)
        values = [q.value if q is not None else None for q in (measured, projected)]
        if any(value is None or value <= TINY for value in values):
            return None
        return float(np.log(values[0]) - np.log(values[1]))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Correction:
    """exp(`offset` + `slope` · log(projected)); errors are mean |log(measured / given)| on maps
    left out in turn, before and after. `spread` is the deviation of the latter.
    """

    figure: str
    offset: float
    slope: float
    error_before: float
    error_after: float
    spread: float
    maps: int

    @property
    def helps(self) -> bool:
        """Whether it errs less on maps that it has not seen."""
        return self.error_after < self.error_before

    def applied(self, projected: Quantity) -> Quantity:
        """The corrected figure, still a projection."""
        if projected.value is None or projected.value <= TINY:
            return projected
        log = self.offset + self.slope * float(np.log(projected.value))
        wide = float(np.exp(Z90 * self.spread))
        value = float(np.exp(log))
        return Quantity(value, projected.unit, "projected", value / wide, value * wide)


def residuals(study: Study) -> list[Residual]:
    """Every verified map, the latest run of each, the oldest first."""
    found = []
    for one in study.verified.values():
        codes = ran_codes(study, one)
        timed = Quantity(None, "ms", "estimated")
        if study.analysis.profile is not None:
            timed = study.latency(THIS_MACHINE).estimate(codes).total
        projected = accuracy_totals(study, study.project(codes))
        found.append(Residual(one, projected, timed))
    return sorted(found, key=lambda r: r.verification.created)


def correction(study: Study, found: list[Residual]) -> Correction | None:
    """The correction of the divergence (KL, or relative MSE) from at least `ENOUGH` maps."""
    name = _divergence(study)
    pairs = [
        (np.log(r.projected[name].value or 1.0), error)
        for r in found
        if (error := r.log_error(name)) is not None
    ]
    if len(pairs) < ENOUGH:
        return None
    x = np.array([a for a, _ in pairs])
    y = x + np.array([b for _, b in pairs])
    left_out = []
    for i in range(len(x)):
        kept = np.arange(len(x)) != i
        offset, slope = _line(x[kept], y[kept])
        left_out.append(y[i] - offset - slope * x[i])
    after = np.array(left_out)
    offset, slope = _line(x, y)
    return Correction(
        name, offset, slope, float(np.abs(y - x).mean()), float(np.abs(after).mean()),
        float(np.sqrt(np.square(after).mean())), len(x),
    )  # fmt: skip


def _line(x: Floats, y: Floats) -> tuple[float, float]:
    """Least squares; where x hardly varies, an offset alone."""
    if np.ptp(x) < 0.1:
        return float((y - x).mean()), 1.0
    slope, offset = np.polyfit(x, y, 1)
    return float(offset), float(slope)


def _divergence(study: Study) -> str:
    return loss_figures(accuracy_totals(study, None)).divergence


def in_words(study: Study, found: list[Residual]) -> str:
    """How far to trust the projection of this model, honestly."""
    if not found:
        return "No map of this model was run yet, so nothing says how far its projection holds."
    figures = loss_figures(accuracy_totals(study, None))
    count = f"{len(found)} map{'' if len(found) == 1 else 's'}"
    errors = [abs(e) for r in found if (e := r.log_error(figures.divergence)) is not None]
    inside = [hit for r in found if (hit := r.inside(figures.loss)) is not None]
    parts = []
    if errors:
        parts.append(
            f"the divergence was off by a factor of {np.exp(np.median(errors)):.2f} "
            f"(median; {np.exp(max(errors)):.2f} at worst)"
        )
    if inside:
        parts.append(f"{sum(inside)} of {len(inside)} losses lie in their projected 90 % range")
    timed = [
        abs(r.verification.timing.map_ms.value / r.estimated_ms.value - 1)
        for r in found
        if r.verification.timing.map_ms.value and r.estimated_ms.value
    ]
    if timed:
        parts.append(f"latency was off by {100 * np.median(timed):.0f} % (median)")
    said = f"Of {count} that were run, {'; '.join(parts) or 'nothing can be compared'}."
    if len(found) < FEW:
        said += " That is too little to judge by: verify a few more, of different sizes."
    return (
        said + " Both are of the selection split, which chose the map; the holdout split judges it."
    )
