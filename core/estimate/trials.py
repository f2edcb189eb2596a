"""Which form of combination suits a model, and how far it errs: judged on simulated whole maps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from core.estimate.combine_perturbations import FIRST_ORDER, FORMS, UNJUDGED, Combiner, Form
from core.estimate.sampled import log_reach
from core.evidence.evidence import Evidence
from core.quantity import Quantity

FLOOR = 1e-12
Z90 = 1.6448536269514722
"""95 % quantile of the normal distribution: the half-width of a 90 % range in deviations."""
MIN_LOG_SPREAD = 0.02


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
        projected = [
            [self.figures(self._combiner.change(row, form)) for row in codes] for form in FORMS
        ]
        return simulated, projected

    @cached_property
    def _log_errors(self) -> NDArray[np.float64]:
        """|log(simulated / projected divergence)| by form and probe, shape [forms, M]."""
        simulated, projected = self._trials
        return np.array(
            [
                [abs(log_ratio(s, p)) for s, p in zip(simulated, row, strict=True)]
                for row in projected
            ]
        ).reshape(len(FORMS), len(simulated))

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

    @cached_property
    def log_spread(self) -> float:
        """Root mean square of log(simulated / projected divergence) over the probes."""
        errors = [log_ratio(simulated, projected) for projected, simulated in self.probe_errors]
        return spread_of(errors, MIN_LOG_SPREAD)

    def log_reaches(self, change: NDArray[np.floating]) -> tuple[float, float]:
        """How far the logarithm of the divergence may lie below and above that of the map with the
        projected `change` [N, K]: by what probes erred, and by the samples that are missing.
        """
        model, of = Z90 * self.log_spread, self.evidence.of_samples
        if of <= self.evidence.samples:
            return model, model
        low, high = log_reach(*self.by_sample(change), of)
        return float(np.hypot(model, low)), float(np.hypot(model, high))

    def ranged(self, value: float, unit: str, reaches: tuple[float, float]) -> Quantity:
        """A projected divergence with its range."""
        low, high = (float(np.exp(reach)) for reach in reaches)
        return Quantity(value, unit, "projected", value / low, value * high)


def log_ratio(simulated: Diverging, projected: Diverging) -> float:
    """log(simulated / projected divergence); 0 where both are nothing."""
    return float(np.log(max(simulated.divergence, FLOOR) / max(projected.divergence, FLOOR)))


def spread_of(errors: list[float], least: float) -> float:
    """Root mean square with one degree of freedom taken off for the few probes there are."""
    if len(errors) < 2:
        return max(least, 0.5)  # nothing is known of the error: be wide, not silent
    return max(float(np.sqrt(np.square(errors).sum() / (len(errors) - 1))), least)
