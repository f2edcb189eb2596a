"""Projecting the figures of any map of a classifier from perturbations of single layers.

Changes of the outputs are combined per sample (`core.estimate.combine_perturbations`); accuracy, KL and flips
follow. Probes, whole maps that were simulated, decide by cross-validation which form of
combination suits the model, and say how far it errs (`core.estimate.trials`); that spread enters
every range beside the sampling error.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.estimate.metrics import correct, kl_per_sample
from core.estimate.trials import Z90, MapProjector, spread_of
from core.evidence.evidence import Evidence
from core.evidence.scorers.logits import log_softmax, named
from core.quantity import RELATIVE, Quantity, unknown

FEW_SAMPLES = 500
SAFE = 300.0
"""Changes of logits up to which an exponential is finite."""
POINTS = 100.0
"""The unit of a relative mean squared error: the variance of the reference outputs."""

NO_METRIC = unknown("", "projected")
NO_METRIC_LOSS = unknown("%", "projected")
NO_RELATIVE_MSE = unknown(RELATIVE, "projected")


@dataclass(frozen=True, slots=True)
class Projection:
    """What is projected for one map on the selection split.

    Classes have the first four figures, values the last three; the others are unknown. `metric`
    is in its own unit, `metric_loss_pct` what is lost of it in percent of the reference model's
    (positive = worse, whichever way the metric points), `relative_mse` the mean squared change
    of the outputs over their variance.
    """

    accuracy: Quantity
    accuracy_drop_pts: Quantity
    kl: Quantity
    flips: Quantity
    forbidden: tuple[int, ...] = ()
    metric: Quantity = NO_METRIC
    metric_loss_pct: Quantity = NO_METRIC_LOSS
    relative_mse: Quantity = NO_RELATIVE_MSE
    unmeasured: tuple[int, ...] = ()


def nothing_projected(
    forbidden: tuple[int, ...] = (), unmeasured: tuple[int, ...] = ()
) -> Projection:
    """Every figure unknown."""
    return Projection(
        unknown("%", "projected"), unknown("pts", "projected"),
        unknown("nats", "projected"), unknown("%", "projected"), forbidden, unmeasured=unmeasured,
    )  # fmt: skip


def _each(given: Projection, **changes: Any) -> Projection:
    quantities: dict[str, Any] = {
        field.name: replace(value, **changes)
        for field in fields(given)
        if isinstance(value := getattr(given, field.name), Quantity)
    }
    return replace(given, **quantities)


def without_ranges(given: Projection) -> Projection:
    """The same figures with unknown ranges: nothing tells yet how far a projection errs."""
    return _each(given, low=None, high=None)


def measured(given: Projection) -> Projection:
    """The same figures, said to be measured."""
    return _each(given, kind="measured")


def within(value: float, half: float, unit: str, bounds: tuple[float, float]) -> Quantity:
    """A figure with the range value ± half, cut to what is possible."""
    low, high = bounds
    return Quantity(value, unit, "projected", max(value - half, low), min(value + half, high))


def standard_error(values: NDArray[np.float64]) -> float:
    """Of the mean of `values` (N,); 0 for a single one, of which nothing is known."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Plain figures of one set of outputs against the baseline.

    `cluster_variance` is the variance of the drop in shares where several steps belong to one
    sample, None where every answer is a sample of its own.
    """

    accuracy: float | None
    drop_pts: float | None
    kl: float
    flips: int
    lost: int
    won: int
    cluster_variance: float | None = None

    @property
    def divergence(self) -> float:
        """What probes are compared by."""
        return self.kl


class Projector(MapProjector[Figures]):
    """Projections from one classifier's evidence; built once, evaluated per map.

    `codes` index `precisions` (the reference first, then the simulated ones); -1 marks a layer
    that does nothing. For a sequence every step is an answer, but for those whose target is
    below 0: they are left out of every figure.
    """

    def __init__(self, evidence: Evidence, reference: str) -> None:
        super().__init__(evidence, reference)
        self._shape = (evidence.samples * evidence.outputs.positions, -1)
        targets = None if evidence.targets is None else evidence.targets.ravel()
        uncounted = targets is not None and bool((targets < 0).any())
        self._rows = np.flatnonzero(targets >= 0) if targets is not None and uncounted else None
        self._targets = targets if targets is None or self._rows is None else targets[self._rows]
        baseline = self._by_answer(evidence.baseline)
        self._log_p = log_softmax(baseline)
        self._count = len(baseline)
        baseline = named(baseline, evidence.outputs)
        self._answers = baseline.argmax(axis=1)
        self._right = None if self._targets is None else correct(baseline, self._targets)

    def _by_answer(self, outputs: NDArray[np.floating]) -> NDArray[np.floating]:
        """[N, K] -> [answers, classes], without steps that do not count."""
        rows = outputs.reshape(self._shape)
        return rows if self._rows is None else rows[self._rows]

    def figures(self, change: NDArray[np.floating]) -> Figures:
        """Figures of the outputs baseline + `change` [N, K] on the selection split."""
        outputs = self._by_answer(self.evidence.baseline + change)
        kl = float(kl_per_sample(self._log_p, outputs).mean())
        outputs = named(outputs, self.evidence.outputs)
        flips = int((outputs.argmax(axis=1) != self._answers).sum())
        if self._targets is None or self._right is None:
            return Figures(None, None, kl, flips, 0, 0)
        right = correct(outputs, self._targets)
        lost_at, won_at = self._right & ~right, ~self._right & right
        lost, won, n = int(lost_at.sum()), int(won_at.sum()), self._count
        drop_pts = (lost - won) / n * POINTS
        variance = self._variance(lost_at, won_at) if self.evidence.outputs.positions > 1 else None
        return Figures(float(right.mean()), drop_pts, kl, flips, lost, won, variance)

    @cached_property
    def _owners(self) -> NDArray[np.int64]:
        """The sample that each answer belongs to."""
        rows = np.arange(self._count) if self._rows is None else self._rows
        return np.asarray(rows // self.evidence.outputs.positions)

    def quick_divergence(self, change: NDArray[np.floating]) -> float:
        """Mean KL by answer as log Σ p exp(d - pᵀd), d the change of its logits: one exponential."""
        moved = self._by_answer(change)
        if moved.max(initial=0) > SAFE or moved.min(initial=0) < -SAFE:
            return super().quick_divergence(change)
        moved = moved - np.einsum("nk,nk->n", self._p, moved)[:, None]
        return float(np.log(np.einsum("nk,nk->n", self._p, np.exp(moved))).mean())

    @cached_property
    def _p(self) -> NDArray[np.float64]:
        return np.asarray(np.exp(self._log_p))

    @cached_property
    def _ones(self) -> NDArray[np.float64]:
        return np.ones(self._count)

    def by_sample(
        self, change: NDArray[np.floating]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """KL of each sample's answers together, and their number."""
        kl = kl_per_sample(self._log_p, self._by_answer(self.evidence.baseline + change))
        n = self.evidence.samples
        if len(kl) == n == self._count and self._rows is None:
            return kl, self._ones
        kls, counts = (
            np.bincount(self._owners, each.astype(np.float64), minlength=n)
            for each in (kl, np.ones(self._count))
        )
        return np.asarray(kls, np.float64), np.asarray(counts, np.float64)

    def _standard_error(self, per_answer: NDArray[np.float64]) -> float:
        """Of a mean over answers, where samples are what was drawn."""
        n, steps = self.evidence.samples, self.evidence.outputs.positions
        if steps == 1 or n < 2:
            return standard_error(per_answer)
        sums = np.bincount(self._owners, per_answer - per_answer.mean(), minlength=n)
        return float(np.sqrt(np.square(sums).sum() * n / (n - 1))) / self._count

    def _variance(self, lost: NDArray[np.bool_], won: NDArray[np.bool_]) -> float:
        """Variance of the drop where samples are what was drawn: steps of one go together."""
        n = self.evidence.samples
        sums = np.bincount(self._owners, lost.astype(np.float64) - won, minlength=n)
        return float(sums.var()) * n / self._count**2

    def project(self, codes: NDArray[np.int8], *, divergence: bool = True) -> Projection:
        """Projected accuracy, drop in points, KL and flips of a map, with 90 % ranges; KL, which takes
        longer than the others, only with `divergence`.
        """
        forbidden, missing = self.forbidden(codes), self.unmeasured(codes)
        if forbidden or missing:
            return nothing_projected(forbidden, missing)
        change = self.change(codes)
        found = self._with_ranges(codes, self.figures(change))
        if divergence:
            found = replace(found, kl=self.divergence_of(codes, change, "nats"))
        return (
            found
            if self.evidence.measured is None or not (codes > 0).any()
            else without_ranges(found)
        )

    def alone(self, layer: int, code: int) -> Projection:
        """Figures with `layer` alone in precision `code`, which were simulated, not projected.

        Their kind is *measured*, and their ranges come from the samples alone.
        """
        codes = self.only(layer, code)
        forbidden, missing = self.forbidden(codes), self.unmeasured(codes)
        if forbidden or missing:
            return measured(nothing_projected(forbidden, missing))
        change = self.change(codes)
        found, n = self.figures(change), self._count
        changes = 1.0 if code > 0 else 0.0
        accuracy = drop = unknown("%", "projected")
        if found.accuracy is not None and found.drop_pts is not None:
            half = changes * Z90 * float(np.sqrt(self._drop_variance(found))) * POINTS
            accuracy = within(found.accuracy * POINTS, half, "%", (0.0, POINTS))
            drop = within(found.drop_pts, half, "pts", (-POINTS, POINTS))
        outputs = self._by_answer(self.evidence.baseline + change)
        kl_half = Z90 * self._standard_error(kl_per_sample(self._log_p, outputs))
        flip_half = changes * Z90 * float(np.sqrt(self._flip_variance(found))) * POINTS
        return measured(
            Projection(
                accuracy,
                drop,
                within(found.kl, kl_half, "nats", (0.0, np.inf)),
                within(found.flips / n * POINTS, flip_half, "%", (0.0, POINTS)),
            )
        )

    def _with_ranges(self, codes: NDArray[np.int8], found: Figures) -> Projection:
        n = self._count
        nothing_changes = not (codes > 0).any()
        half = 0.0 if nothing_changes else Z90 * self._drop_deviation_pts(found)
        flips = found.flips / n * POINTS
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
            unknown("nats", "projected"),
            Quantity(flips, "%", "projected", max(flips - flip_half, 0.0), flips + flip_half),
        )

    # ---- how far the projection errs

    @cached_property
    def drop_error_per_flip(self) -> float:
        """Spread of the drop's error in answers, per root of flipped answers.

        Every answer that a map flips is one that the projection can get wrong; independent
        coin tosses make the error grow with the root of their number.
        """
        n = self._count
        errors = [
            ((simulated.drop_pts or 0.0) - (projected.drop_pts or 0.0))
            / POINTS * n / np.sqrt(projected.flips + 1)
            for projected, simulated in self.probe_errors
        ]  # fmt: skip
        return spread_of(errors, 0.0)

    @cached_property
    def least_upper_pts(self) -> float:
        """The upper end of the drop in points of a narrower map that changes no answer: that of its
        range, which says what the samples leave open.
        """
        return Z90 * self._drop_deviation_pts(Figures(None, 0.0, 0.0, 0, 0, 0))

    @cached_property
    def _flip_error_per_flip(self) -> float:
        errors = [
            (simulated.flips - projected.flips) / np.sqrt(projected.flips + 1)
            for projected, simulated in self.probe_errors
        ]
        return spread_of(errors, 0.0)

    def _drop_deviation_pts(self, found: Figures) -> float:
        n = self._count
        model = (self.drop_error_per_flip * np.sqrt(found.flips + 1) / n) ** 2
        return float(np.sqrt(self._drop_variance(found) + model)) * POINTS

    def _flip_deviation_pts(self, found: Figures) -> float:
        model = (self._flip_error_per_flip * np.sqrt(found.flips + 1) / self._count) ** 2
        return float(np.sqrt(self._flip_variance(found) + model)) * POINTS

    def _drop_variance(self, found: Figures) -> float:
        """Sampling variance of the accuracy drop as a share.

        Laplace-adjusted difference of paired proportions (Bonett and Price 2012,
        doi:10.3102/1076998611411915): one sample more in either cell, so that no flips at all do
        not pass for certainty.
        """
        n = self._count
        lost, won = (found.lost + 1) / (n + 2), (found.won + 1) / (n + 2)
        sampling = float((lost + won - (lost - won) ** 2) / (n + 2))
        if found.cluster_variance is not None:
            sampling = max(sampling, found.cluster_variance)
        return sampling

    def _flip_variance(self, found: Figures) -> float:
        """Sampling variance of the share of flipped answers, adjusted in the same way."""
        rate = (found.flips + 1) / (self._count + 2)
        # A sequence is one draw, however many steps it has.
        return float(rate * (1 - rate) / (self.evidence.samples + 2))
