"""Which form of combination suits a model, and how far it errs: judged on simulated whole maps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from core.estimate.combine_perturbations import FIRST_ORDER, FORMS, UNJUDGED, Combiner, Form
from core.estimate.sampled import log_reach, t95
from core.evidence.evidence import Evidence
from core.quantity import Quantity

FLOOR = 1e-12
Z90 = 1.6448536269514722
"""95 % quantile of the normal distribution: the half-width of a 90 % range in deviations."""
MIN_LOG_SPREAD = 0.02
UNJUDGED_SPREAD = 0.5
"""Of the logarithm, where nothing is known of the error: be wide, not silent."""
POWER, LEAST_ERROR = 3.0, 0.005
"""A form counts by its root mean square log error to the power of -3."""
LEAST_APART = 1e-3
"""Forms that agree to the last bit may be wrong together."""
FAR = 0.05
"""Deviation of the logarithm for each unit that a map's lies below that of every probe."""


class Diverging(Protocol):
    """Figures of one set of outputs, with how far these are from the reference's."""

    @property
    def divergence(self) -> float:
        """0 = the same outputs; KL in nats for classes, relative squared change for values."""


F = TypeVar("F", bound=Diverging)


class MapProjector(ABC, Generic[F]):
    """What projections of classes and of values have in common.

    `codes` index `precisions` (the reference first, then the simulated ones); -1 marks a layer
    that does nothing.
    """

    def __init__(self, evidence: Evidence, reference: str) -> None:
        self.evidence = evidence
        self.precisions = (reference, *evidence.precisions)
        self._combiner = Combiner(evidence)

    @abstractmethod
    def figures(self, change: NDArray[np.floating]) -> F:
        """Figures of the outputs baseline + `change` [N, K] on the selection split."""

    @abstractmethod
    def by_sample(
        self, change: NDArray[np.floating]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What each sample adds to the divergence of the outputs baseline + `change` [N, K], and to
        what that is divided by, both (N,).
        """

    def change(self, codes: NDArray[np.int8], form: Form | None = None) -> NDArray[np.float64]:
        """Projected change of the outputs [N, K] under `codes` (L,), by the chosen form."""
        return self._combiner.change(codes, form or self.form)

    def unmeasured(self, codes: NDArray[np.int8]) -> tuple[int, ...]:
        """Layers that were not measured yet in their precision."""
        measured = self.evidence.measured
        if measured is None:
            return ()
        simulated = np.flatnonzero(codes > 0)
        known = measured[codes[simulated].astype(np.int64) - 1, simulated]
        return tuple(int(i) for i in simulated[~known])

    def only(self, layer: int, code: int) -> NDArray[np.int8]:
        """Codes of the map with `layer` alone in precision `code`, shape (L,)."""
        codes = np.zeros(self.evidence.allowed.shape[1], dtype=np.int8)
        codes[layer] = code
        return codes

    def forbidden(self, codes: NDArray[np.int8]) -> tuple[int, ...]:
        """Layers whose precision gave outputs that are not finite (overflow)."""
        simulated = np.flatnonzero(codes > 0)
        allowed = self.evidence.allowed[codes[simulated].astype(np.int64) - 1, simulated]
        return tuple(int(i) for i in simulated[~allowed])

    @cached_property
    def _trials(self) -> tuple[list[F], list[list[F]]]:
        """Figures of every probe: simulated [M], and projected under every form [form][M]."""
        evidence = self.evidence
        simulated = [self.figures(change) for change in evidence.probes]
        codes = (evidence.probe_codes + 1).astype(np.int8)
        by_probe = [[self.figures(c) for c in self._combiner.changes(row)] for row in codes]
        return simulated, [[row[f] for row in by_probe] for f in range(len(FORMS))]

    @cached_property
    def _trial_logs(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Logarithms of the divergence of probes: simulated [M], projected by every form [M, forms]."""
        simulated, projected = self._trials
        by_form = np.array([[_log(one.divergence) for one in row] for row in projected])
        logs = np.array([_log(one.divergence) for one in simulated])
        return logs, by_form.reshape(len(FORMS), len(logs)).T

    @cached_property
    def _log_errors(self) -> NDArray[np.float64]:
        """|log(simulated / projected divergence)| by form and probe, shape [forms, M]."""
        simulated, projected = self._trial_logs
        return np.abs(simulated[:, None] - projected).T

    @cached_property
    def form(self) -> Form:
        """The form with the smallest mean log error of the divergence over the probes.

        Before whole maps were measured nothing tells of interactions: changes are added.
        """
        if self.evidence.measured is not None:
            return FIRST_ORDER
        if self._log_errors.shape[1] == 0:
            return UNJUDGED
        return FORMS[int(np.argmin(self._log_errors.mean(axis=1).round(6)))]

    @cached_property
    def unseen_forms(self) -> list[int]:
        """For every probe the form, by position, that the *other* probes choose."""
        count = self._log_errors.shape[1]
        if count < 2:
            return [0] * count
        return [
            int(np.argmin(np.delete(self._log_errors, m, axis=1).mean(axis=1).round(6)))
            for m in range(count)
        ]

    @cached_property
    def probe_errors(self) -> list[tuple[F, F]]:
        """(projected, simulated) figures of every probe, each under the form that the *other*
        probes choose: an error that the choice has not seen.
        """
        simulated, projected = self._trials
        return [(projected[best][m], simulated[m]) for m, best in enumerate(self.unseen_forms)]

    # ---- divergence: all forms together, by what the probes say of each

    def divergence_of(
        self, codes: NDArray[np.int8], change: NDArray[np.floating], unit: str
    ) -> Quantity:
        """Divergence of the map `codes` with its range, which has two parts in quadrature: how far
        projections err, and what samples leave open that are not measured. `change` [N, K] is that of
        the chosen form.
        """
        value, samples = self._divergence(change), (0.0, 0.0)
        if not (codes > 0).any():
            return Quantity(value, unit, "projected", value, value)
        of, half = self.evidence.of_samples, Z90 * UNJUDGED_SPREAD
        if of > self.evidence.samples:
            samples = log_reach(*self.by_sample(change), of)
        if self._has_probes:
            middle, half = self._blend(self._logs(codes))
            value *= float(np.exp(middle - _log(value)))
        low, high = (float(np.exp(np.hypot(half, one))) for one in samples)
        return Quantity(value, unit, "projected", value / low, value * high)

    def reach(self, by: Literal["upper", "point"]) -> float:
        """The upper end of a divergence, or the divergence, over that of the chosen form: the median
        over the probes.
        """
        if not self._has_probes:
            return float(np.exp(Z90 * UNJUDGED_SPREAD)) if by == "upper" else 1.0
        at, end = FORMS.index(self.form), []
        for logs in self._trial_logs[1]:
            middle, half = self._blend(logs)
            end.append(middle - logs[at] + (half if by == "upper" else 0.0))
        return float(np.exp(np.median(end)))

    def _blend(self, logs: NDArray[np.float64]) -> tuple[float, float]:
        """Logarithm of the divergence from those of all forms, and half of its 90 % range."""
        middle, apart = blended(logs, weights(self._log_errors))
        near = self._growth * float(np.sqrt(apart + LEAST_APART))
        beyond = FAR * max(self._least_probe - middle, 0.0)
        spread = max(float(np.hypot(near, beyond)), MIN_LOG_SPREAD)
        return middle, t95(len(self.evidence.probes) - 1) * spread

    @cached_property
    def _least_probe(self) -> float:
        """The least logarithm of a divergence that is projected of a probe."""
        return float((self._trial_logs[1] @ weights(self._log_errors)).min())

    @property
    def _has_probes(self) -> bool:
        """Whether there are probes enough to tell forms apart, and how far they err."""
        return bool(self._log_errors.shape[1] > 1)

    def quick_divergence(self, change: NDArray[np.floating]) -> float:
        """Divergence of the outputs baseline + `change` [N, K], to the digits that a comparison of forms
        needs.
        """
        return self._divergence(change)

    def _divergence(self, change: NDArray[np.floating]) -> float:
        moved, by = (float(each.sum()) for each in self.by_sample(change))
        return moved / by if by > 0 else (0.0 if moved == 0 else np.inf)

    def _logs(self, codes: NDArray[np.int8]) -> NDArray[np.float64]:
        """Logarithm of the divergence of a map by every form, shape [forms]."""
        return np.array([_log(self.quick_divergence(c)) for c in self._combiner.changes(codes)])

    @cached_property
    def _growth(self) -> float:
        """Spread of log(simulated / projected divergence) over the probes, per root of how far the
        forms lie apart; each probe's forms are weighted by what the *other* probes say.
        """
        simulated, projected = self._trial_logs
        found = []
        for m, logs in enumerate(projected):
            middle, apart = blended(logs, weights(np.delete(self._log_errors, m, axis=1)))
            found.append(float((simulated[m] - middle) / np.sqrt(apart + LEAST_APART)))
        return spread_of(found, 0.0)


def weights(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each form counts by its log `errors` [forms, probes], shape [forms]; they sum to 1."""
    found = (np.square(errors).mean(axis=1) + LEAST_ERROR**2) ** (-POWER / 2)
    return np.asarray(found / found.sum())


def blended(logs: NDArray[np.float64], weighted: NDArray[np.float64]) -> tuple[float, float]:
    """Weighted mean of what forms project, in logarithms [forms], and how far they lie apart: their
    weighted standard deviation.
    """
    middle = float(logs @ weighted)
    return middle, float(np.sqrt(np.square(logs - middle) @ weighted))


def _log(divergence: float) -> float:
    return float(np.log(np.clip(divergence, FLOOR, 1 / FLOOR)))


def spread_of(errors: list[float], least: float) -> float:
    """Root mean square with one degree of freedom taken off for the few probes there are."""
    if len(errors) < 2:
        return max(least, UNJUDGED_SPREAD)
    return max(float(np.sqrt(np.square(errors).sum() / (len(errors) - 1))), least)
