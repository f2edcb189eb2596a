"""Projecting the figures of any map of a model whose outputs are values.

The relative mean squared error of the outputs takes the place of KL. Root mean square error
against targets follows from projected outputs, sample by sample. A custom metric cannot be
called any more: its changes, measured one layer at a time, are combined like outputs are, with
resamples beside them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from core.estimate.combine_perturbations import FORMS, Combiner, Form
from core.estimate.projection import (
    NO_METRIC,
    NO_METRIC_LOSS,
    POINTS,
    Projection,
    measured,
    nothing_projected,
    standard_error,
    within,
    without_ranges,
)
from core.estimate.trials import Z90, MapProjector, spread_of
from core.evidence.evidence import Evidence, MetricRuns, mean_known, spread_by_sample
from core.quantity import RELATIVE, Quantity
from core.task import Metric

Floats = NDArray[np.float64]


LEAST_SHARE = 1e-2
"""Of its scale: what a metric has to be at least for a loss in percent of it."""


def away_from_zero(reference: float, sampling: float, scale: float) -> bool:
    """Whether a loss in percent of the metric `reference` means something: it is beyond the 90 %
    range of its own standard error `sampling`, and no less than a hundredth of `scale`, what it
    varies by or is held against.
    """
    return abs(reference) > max(Z90 * sampling, LEAST_SHARE * scale)


@dataclass(frozen=True, slots=True)
class ValueFigures:
    """Plain figures of one set of outputs against the baseline.

    `metric_change` is that of the metric in its own unit (None without targets), `variance` its
    sampling variance (None where one sample says nothing of it).
    """

    relative_mse: float
    metric_change: float | None = None
    variance: float | None = None

    @property
    def divergence(self) -> float:
        """What probes are compared by."""
        return self.relative_mse


class ValueProjector(MapProjector[ValueFigures]):
    """Projections from the evidence of a model whose outputs are values, judged by `metric`."""

    def __init__(self, evidence: Evidence, reference: str, metric: Metric | None) -> None:
        super().__init__(evidence, reference)
        self._metric = metric
        self._spread = evidence.spread
        targets = evidence.targets
        self._targets: Floats | None = None if targets is None else targets.astype(np.float64)
        self._errors = self._squared_errors(np.zeros(1))
        runs = evidence.metrics
        self._runs = None if runs is None else _RunsCombiner(evidence, runs)

    def figures(self, change: NDArray[np.floating]) -> ValueFigures:
        """Figures of the outputs baseline + `change` [N, K] on the selection split."""
        moved = float(np.square(change, dtype=np.float64).sum())
        relative = moved / self._spread if self._spread > 0 else (0.0 if moved == 0 else np.inf)
        errors = self._squared_errors(change)
        if self._errors is None or errors is None:
            return ValueFigures(relative)
        before, after = np.sqrt(self._errors.mean()), np.sqrt(errors.mean())
        # Delta method: each sample's part in the difference of two roots.
        parts = errors / (2 * max(after, 1e-30)) - self._errors / (2 * max(before, 1e-30))
        n = len(parts)
        variance = float(parts.var(ddof=1)) / n if n > 1 else None
        return ValueFigures(relative, float(after - before), variance)

    def by_sample(self, change: NDArray[np.floating]) -> tuple[Floats, Floats]:
        """Squared change of each sample's outputs, and its part of their variance."""
        return np.square(change, dtype=np.float64).sum(axis=1), self.evidence.spread_by_sample

    def _squared_errors(self, change: NDArray[np.floating]) -> Floats | None:
        """Mean squared error of each sample's outputs baseline + `change`, shape (N,); None
        without targets. Targets of NaN are left out, and the others weigh more in their place.
        """
        if self._targets is None:
            return None
        outputs = self.evidence.baseline + change.astype(np.float64)
        known = ~np.isnan(self._targets)
        squares = np.where(known, np.square(outputs - self._targets), 0.0)
        means: Floats = squares.mean(axis=1) / known.mean()
        return means

    @cached_property
    def reference_metric(self) -> float | None:
        """The metric of the reference outputs on the selection split; None without targets."""
        if self._errors is not None:
            return float(np.sqrt(self._errors.mean()))
        return None if self._runs is None else float(self._runs.runs.baseline[0])

    @cached_property
    def has_percent(self) -> bool:
        """Whether the reference's metric is clearly away from 0, so that percent of it mean
        something.
        """
        reference = self.reference_metric
        if reference is None:
            return False
        if self._errors is not None and self._targets is not None:
            sampling = standard_error(self._errors) / (2 * reference) if reference > 0 else 0.0
            known = np.where(np.isnan(self._targets), mean_known(self._targets), self._targets)
            count = np.count_nonzero(~np.isnan(self._targets))
            # Errors of a tenth of the targets' deviation are those of a model of any use.
            scale = float(np.sqrt(spread_by_sample(known).sum() / count)) / 10
        elif self._runs is not None:
            runs = self._runs.runs
            sampling = float(runs.baseline[1:].std(ddof=1)) if len(runs.baseline) > 2 else 0.0
            seen = (runs.alone[..., 0], runs.whole[:, 0], runs.probes[:, 0])
            scale = max(float(np.abs(s - reference).max(initial=0.0)) for s in seen)
        return away_from_zero(reference, sampling, scale)

    def project(self, codes: NDArray[np.int8], *, divergence: bool = True) -> Projection:
        """Projected metric, its loss in percent, and relative squared change of the outputs, which
        takes longer than the others, only with `divergence`.
        """
        forbidden, missing = self.forbidden(codes), self.unmeasured(codes)
        if forbidden or missing:
            return nothing_projected(forbidden, missing)
        change = self.change(codes)
        found = self.figures(change)
        if self._runs is not None:
            metric_change, variance = self._runs.change(codes, self.form)
            found = ValueFigures(found.relative_mse, metric_change, variance)
        nothing_changes = not (codes > 0).any()
        metric, loss = self._judged(found, self._half_width(found, nothing_changes))
        projected = replace(
            nothing_projected(),
            metric=metric,
            metric_loss_pct=loss,
        )
        if divergence:
            projected = replace(projected, relative_mse=self.divergence_of(codes, change, RELATIVE))
        if self.evidence.measured is None or nothing_changes:
            return projected
        return without_ranges(projected)

    def alone(self, layer: int, code: int) -> Projection:
        """Figures with `layer` alone in precision `code`, which were simulated, not projected.

        Their kind is *measured*, and their ranges come from the samples alone.
        """
        codes = self.only(layer, code)
        forbidden, missing = self.forbidden(codes), self.unmeasured(codes)
        if forbidden or missing:
            return measured(nothing_projected(forbidden, missing))
        change = self.change(codes)
        found = self.figures(change)
        if self._runs is not None:
            found = ValueFigures(found.relative_mse, *self._runs.change(codes, self.form))
        half = None if found.variance is None else Z90 * float(np.sqrt(found.variance))
        metric, loss = self._judged(found, half)
        moved = np.square(change).sum(axis=1)
        share = len(moved) / self._spread if self._spread > 0 else 0.0
        relative = within(
            found.relative_mse, Z90 * standard_error(moved) * share, RELATIVE, (0.0, np.inf)
        )
        return measured(
            replace(nothing_projected(), metric=metric, metric_loss_pct=loss, relative_mse=relative)
        )

    def _judged(self, found: ValueFigures, half: float | None) -> tuple[Quantity, Quantity]:
        """The metric, and what is lost of it in percent of the reference's, each ± `half`."""
        reference, metric = self.reference_metric, self._metric
        if found.metric_change is None or reference is None or metric is None:
            return NO_METRIC, NO_METRIC_LOSS
        value = reference + found.metric_change
        judged = Quantity(value, NO_METRIC.unit, "projected", *_around(value, half))
        if not self.has_percent:
            return judged, NO_METRIC_LOSS
        per_unit = POINTS / abs(reference)
        loss = found.metric_change * (-per_unit if metric.higher_is_better else per_unit)
        width = None if half is None else half * per_unit
        return judged, Quantity(loss, "%", "projected", *_around(loss, width))

    def _half_width(self, found: ValueFigures, nothing_changes: bool) -> float | None:
        if nothing_changes:
            return 0.0
        if found.variance is None:
            return None
        model = self._error_per_root * np.sqrt(found.relative_mse)
        return Z90 * float(np.sqrt(found.variance + model**2))

    @cached_property
    def _error_per_root(self) -> float:
        """Spread of the projected metric's error over the probes, per root of relative MSE.

        A metric that does not jump moves at most in proportion to how far the outputs move.
        """
        errors = []
        for m, (projected, simulated) in enumerate(self.probe_errors):
            guess, truth = projected.metric_change, simulated.metric_change
            if self._runs is not None:
                guess, truth = self._runs.probe(m, FORMS[self.unseen_forms[m]])
            root = np.sqrt(projected.relative_mse)
            if guess is not None and truth is not None and root > 0:
                errors.append(float((truth - guess) / root))
        if len(errors) < 2:
            return float(np.sqrt(self._spread / max(self.evidence.baseline.size, 1)))
        return spread_of(errors, 0.0)


class _RunsCombiner:
    """Changes of a custom metric combined over layers, each resample by itself."""

    def __init__(self, evidence: Evidence, runs: MetricRuns) -> None:
        self.runs = runs
        count = len(runs.baseline)
        as_outputs = replace(
            evidence,
            baseline=runs.baseline.reshape(count, 1).astype(np.float32),
            perturbations=(runs.alone - runs.baseline)[..., None].astype(np.float32),
            whole=(runs.whole - runs.baseline)[..., None].astype(np.float32),
        )
        # Layers weigh and overlap by how they move outputs: a metric may stand still by chance.
        self._combiner = Combiner(as_outputs, like=evidence)
        self._codes = (evidence.probe_codes + 1).astype(np.int8)

    def change(self, codes: NDArray[np.int8], form: Form) -> tuple[float, float | None]:
        """The change on the whole split, and its sampling variance."""
        found = self._combiner.change(codes, form)[:, 0]
        resampled = found[1:]
        variance = float(resampled.var(ddof=1)) if len(resampled) > 1 else None
        return float(found[0]), variance

    def probe(self, m: int, form: Form) -> tuple[float, float]:
        """(projected, simulated) change under probe `m`."""
        projected = float(self._combiner.change(self._codes[m], form)[0, 0])
        return projected, float(self.runs.probes[m, 0] - self.runs.baseline[0])


def _around(value: float, half: float | None) -> tuple[float | None, float | None]:
    return (None, None) if half is None else (value - half, value + half)
