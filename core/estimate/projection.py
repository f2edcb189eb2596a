"""Projecting the figures of any map from perturbations measured one layer at a time.

Changes of the outputs are combined per sample (`core.estimate.combine`); accuracy, KL and flips
follow. Probes, whole maps that were simulated, decide by cross-validation which form of
combination suits the model, and say how far it errs; that spread enters every range beside the
sampling error.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from core.estimate.combine import FORMS, Combiner, Form
from core.estimate.metrics import correct, kl_per_sample, log_softmax
from core.estimate.quantity import Quantity, unknown
from core.evidence.evidence import Evidence

Z90 = 1.6448536269514722
"""95 % quantile of the normal distribution: the half-width of a 90 % range in deviations."""

FEW_SAMPLES = 500
KL_FLOOR = 1e-12
POINTS = 100.0
MIN_LOG_SPREAD = 0.02


@dataclass(frozen=True, slots=True)
class Projection:
    """What is projected for one map on the selection split."""

    accuracy: Quantity
    accuracy_drop_pts: Quantity
    kl: Quantity
    flips: Quantity
    forbidden: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Figures:
    """Plain figures of one set of outputs against the baseline."""

    accuracy: float | None
    drop_pts: float | None
    kl: float
    flips: int
    lost: int
    won: int


class Projector:
    """Projections from one model's evidence; built once, evaluated per map.

    `codes` index `precisions` (the reference first, then the simulated ones); -1 marks a layer
    that does nothing.
    """

    def __init__(self, evidence: Evidence, reference: str) -> None:
        self.evidence = evidence
        self.precisions = (reference, *evidence.precisions)
        self._log_p = log_softmax(evidence.baseline)
        self._answers = evidence.baseline.argmax(axis=1)
        targets = evidence.targets
        self._right = None if targets is None else correct(evidence.baseline, targets)
        self._combiner = Combiner(evidence)

    def change(self, codes: NDArray[np.int8], form: Form | None = None) -> NDArray[np.float64]:
        """Projected change of the outputs [N, K] under `codes` (L,), by the chosen form."""
        return self._combiner.change(codes, form or self.form)

    def forbidden(self, codes: NDArray[np.int8]) -> tuple[int, ...]:
        """Layers whose precision gave outputs that are not finite (overflow)."""
        simulated = np.flatnonzero(codes > 0)
        allowed = self.evidence.allowed[codes[simulated].astype(np.int64) - 1, simulated]
        return tuple(int(i) for i in simulated[~allowed])

    def figures(self, change: NDArray[np.floating]) -> Figures:
        """Figures of the outputs baseline + `change` [N, K] on the selection split."""
        outputs = self.evidence.baseline + change
        kl = float(kl_per_sample(self._log_p, outputs).mean())
        flips = int((outputs.argmax(axis=1) != self._answers).sum())
        targets = self.evidence.targets
        if targets is None or self._right is None:
            return Figures(None, None, kl, flips, 0, 0)
        right = correct(outputs, targets)
        lost, won = int((self._right & ~right).sum()), int((~self._right & right).sum())
        n = len(right)
        return Figures(float(right.mean()), (lost - won) / n * POINTS, kl, flips, lost, won)

    def project(self, codes: NDArray[np.int8]) -> Projection:
        """Projected accuracy, drop in points, KL and flips of a map, with 90 % ranges."""
        forbidden = self.forbidden(codes)
        if forbidden:
            return Projection(
                unknown("%", "projected"), unknown("pts", "projected"),
                unknown("nats", "projected"), unknown("%", "projected"), forbidden,
            )  # fmt: skip
        return self._with_ranges(codes, self.figures(self.change(codes)))

    def alone(self, layer: int, code: int) -> Projection:
        """Figures with `layer` alone in precision `code`, which were simulated, not projected.

        Their kind is *measured*, and their ranges come from the samples alone.
        """
        codes = np.zeros(len(self.evidence.allowed[0]), dtype=np.int8)
        codes[layer] = code
        forbidden = self.forbidden(codes)
        if forbidden:
            return Projection(
                unknown("%", "measured"), unknown("pts", "measured"),
                unknown("nats", "measured"), unknown("%", "measured"), forbidden,
            )  # fmt: skip
        change = (
            self.evidence.perturbations[code - 1, layer]
            if code > 0
            else np.zeros_like(self.evidence.baseline)
        )
        found, n = self.figures(change), self.evidence.samples
        accuracy = drop = unknown("%", "measured")
        if found.accuracy is not None and found.drop_pts is not None:
            half = Z90 * float(np.sqrt(_drop_variance(found, n))) * POINTS if code > 0 else 0.0
            accuracy = _within(found.accuracy * POINTS, half, "%", (0.0, POINTS))
            drop = _within(found.drop_pts, half, "pts", (-POINTS, POINTS))
        per_sample = kl_per_sample(self._log_p, self.evidence.baseline + change)
        kl_half = Z90 * float(per_sample.std(ddof=1)) / np.sqrt(n) if n > 1 else 0.0
        flip_half = Z90 * float(np.sqrt(_flip_variance(found, n))) * POINTS if code > 0 else 0.0
        return Projection(
            accuracy,
            drop,
            _within(found.kl, kl_half, "nats", (0.0, np.inf)),
            _within(found.flips / n * POINTS, flip_half, "%", (0.0, POINTS)),
        )

    def _with_ranges(self, codes: NDArray[np.int8], found: Figures) -> Projection:
        n = self.evidence.samples
        nothing_changes = not (codes > 0).any()
        half = 0.0 if nothing_changes else Z90 * self._drop_deviation_pts(found)
        flips = found.flips / n * POINTS
        spread = 1.0 if nothing_changes else float(np.exp(Z90 * self.log_kl_spread))
        flip_half = 0.0 if nothing_changes else Z90 * self._flip_deviation_pts(found)
        accuracy = drop = unknown("%", "projected")
        if found.accuracy is not None and found.drop_pts is not None:
            value = found.accuracy * POINTS
            accuracy = Quantity(
                value, "%", "projected", max(value - half, 0.0), min(value + half, POINTS)
            )
            drop = Quantity(
                found.drop_pts, "pts", "projected", found.drop_pts - half, found.drop_pts + half
            )
        return Projection(
            accuracy,
            drop,
            Quantity(found.kl, "nats", "projected", found.kl / spread, found.kl * spread),
            Quantity(flips, "%", "projected", max(flips - flip_half, 0.0), flips + flip_half),
        )

    # ---- which form, and how far it errs

    @cached_property
    def _trials(self) -> tuple[list[Figures], list[list[Figures]]]:
        """Figures of every probe: simulated [M], and projected under every form [form][M]."""
        evidence = self.evidence
        simulated = [self.figures(change) for change in evidence.probes]
        codes = (evidence.probe_codes + 1).astype(np.int8)
        projected = [
            [self.figures(self._combiner.change(row, form)) for row in codes] for form in FORMS
        ]
        return simulated, projected

    @cached_property
    def _log_errors(self) -> NDArray[np.float64]:
        """|log(simulated / projected KL)| by form and probe, shape [forms, M]."""
        simulated, projected = self._trials
        return np.array(
            [
                [abs(_log_ratio(s, p)) for s, p in zip(simulated, row, strict=True)]
                for row in projected
            ]
        ).reshape(len(FORMS), len(simulated))

    @cached_property
    def form(self) -> Form:
        """The form with the smallest mean log error of KL over the probes."""
        if self._log_errors.shape[1] == 0:
            return FORMS[1]
        return FORMS[int(np.argmin(self._log_errors.mean(axis=1).round(6)))]

    @cached_property
    def probe_errors(self) -> list[tuple[Figures, Figures]]:
        """(projected, simulated) figures of every probe, each under the form that the *other*
        probes choose: an error that the choice has not seen.
        """
        simulated, projected = self._trials
        count = len(simulated)
        pairs = []
        for m in range(count):
            others = np.delete(self._log_errors, m, axis=1)
            best = int(np.argmin(others.mean(axis=1).round(6))) if count > 1 else 0
            pairs.append((projected[best][m], simulated[m]))
        return pairs

    @cached_property
    def log_kl_spread(self) -> float:
        """Root mean square of log(simulated / projected KL) over the probes."""
        errors = [_log_ratio(simulated, projected) for projected, simulated in self.probe_errors]
        return _spread(errors, MIN_LOG_SPREAD)

    @cached_property
    def _drop_error_per_flip(self) -> float:
        """Spread of the drop's error in samples, per root of flipped samples.

        Every sample that a map flips is one that the projection can get wrong; independent
        coin tosses make the error grow with the root of their number.
        """
        n = self.evidence.samples
        errors = [
            ((simulated.drop_pts or 0.0) - (projected.drop_pts or 0.0))
            / POINTS * n / np.sqrt(projected.flips + 1)
            for projected, simulated in self.probe_errors
        ]  # fmt: skip
        return _spread(errors, 0.0)

    @cached_property
    def _flip_error_per_flip(self) -> float:
        errors = [
            (simulated.flips - projected.flips) / np.sqrt(projected.flips + 1)
            for projected, simulated in self.probe_errors
        ]
        return _spread(errors, 0.0)

    def _drop_deviation_pts(self, found: Figures) -> float:
        n = self.evidence.samples
        model = (self._drop_error_per_flip * np.sqrt(found.flips + 1) / n) ** 2
        return float(np.sqrt(_drop_variance(found, n) + model)) * POINTS

    def _flip_deviation_pts(self, found: Figures) -> float:
        n = self.evidence.samples
        model = (self._flip_error_per_flip * np.sqrt(found.flips + 1) / n) ** 2
        return float(np.sqrt(_flip_variance(found, n) + model)) * POINTS


def _drop_variance(found: Figures, n: int) -> float:
    """Sampling variance of the accuracy drop as a share.

    Laplace-adjusted difference of paired proportions (Bonett and Price 2012,
    doi:10.3102/1076998611411915): one sample more in either cell, so that no flips at all do not
    pass for certainty.
    """
    lost, won = (found.lost + 1) / (n + 2), (found.won + 1) / (n + 2)
    return float((lost + won - (lost - won) ** 2) / (n + 2))


def _flip_variance(found: Figures, n: int) -> float:
    """Sampling variance of the share of flipped samples, adjusted in the same way."""
    rate = (found.flips + 1) / (n + 2)
    return float(rate * (1 - rate) / (n + 2))


def _within(value: float, half: float, unit: str, bounds: tuple[float, float]) -> Quantity:
    """A measured figure with the range value ± half, cut to what is possible."""
    low, high = bounds
    return Quantity(value, unit, "measured", max(value - half, low), min(value + half, high))


def _log_ratio(simulated: Figures, projected: Figures) -> float:
    return float(np.log(max(simulated.kl, KL_FLOOR) / max(projected.kl, KL_FLOOR)))


def _spread(errors: list[float], least: float) -> float:
    """Root mean square with one degree of freedom taken off for the few probes there are."""
    if len(errors) < 2:
        return max(least, 0.5)  # nothing is known of the error: be wide, not silent
    return max(float(np.sqrt(np.square(errors).sum() / (len(errors) - 1))), least)
