"""One analysis made ready for questions: the tables that decisions, prices and projections need.

Everything that does not depend on the policy (scores, sizes, perturbation sums, latency tables)
is computed once, so that each answer costs a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from core.analysis.analysis import Analysis
from core.decide.policy.decision import NO_PRECISION
from core.decide.policy.policy import Policy, default_policy
from core.decide.policy.unmeasured import Unmeasured, unmeasured
from core.estimate import hardware as hardware_profiles
from core.estimate.latency import LatencyModel
from core.estimate.measured import MeasuredLatency
from core.estimate.projection import Projection, Projector
from core.estimate.size import glue_bytes, size_table
from core.estimate.values import ValueProjector
from core.evidence.evidence import Evidence
from core.evidence.scorers import SCORERS, score_table
from core.lru import LRU
from core.numerics import precision as registry
from core.records.verification import Verification

T = TypeVar("T")
MOST_KEPT = 32
"""Devices, and derived tables of a kind, that a study keeps: more than there are."""


class Study:
    """An analysis with its derived tables. Safe to share between sessions: nothing mutates."""

    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        self.layers = analysis.layers
        evidence = analysis.evidence
        # Before anything was measured a map may use whatever is registered.
        measured = registry.simulated() if evidence is None else evidence.precisions
        self.precisions: tuple[str, ...] = (registry.REFERENCE, *measured)
        self._latency: LRU[str, LatencyModel] = LRU(MOST_KEPT)
        self._uniform_ms: LRU[str, dict[str, float]] = LRU(MOST_KEPT)
        self._derived: LRU[Callable[[Study], object], object] = LRU(MOST_KEPT)

    @cached_property
    def score_precision(self) -> str:
        """The precision that scores speak of: the narrowest in which products are of integers, since
        formats of weights alone leave most kinds of layers as they are; else the narrowest.
        """
        integers = [name for name in self.precisions if registry.get(name).is_calibrated]
        return min(integers or self.precisions, key=registry.width)

    @cached_property
    def scores(self) -> dict[str, NDArray[np.float64]]:
        """Scores by scorer, each of shape (L,)."""
        found = score_table(self.layers, self.analysis.evidence, self.score_precision)
        if self.unknown is None:
            return found
        # A layer that was not measured yet would score 0, as if it were harmless.
        return {n: s for n, s in found.items() if SCORERS[n].per_sample is None}

    @cached_property
    def unknown(self) -> Unmeasured | None:
        """Pairs [P, L] of `precisions` and layers not measured yet; None where none is missing."""
        return unmeasured(self.layers, self.analysis.evidence)

    @cached_property
    def size_bytes(self) -> NDArray[np.int64]:
        """Stored bytes by precision and layer, shape (P, L)."""
        return size_table(self.layers, [self.analysis.precision(n) for n in self.precisions])

    @cached_property
    def glue_bytes(self) -> int:
        """Stored bytes that belong to no layer."""
        return glue_bytes(self.layers)

    def stored_bytes(self, codes: NDArray[np.int8]) -> int:
        """Bytes of all tensors of the map `codes` (L,), those of no layer included; a layer that
        does nothing (-1) stores nothing in any precision.
        """
        picked = self.size_bytes[np.maximum(codes, 0), np.arange(len(codes))]
        return int(picked.sum()) + self.glue_bytes

    @cached_property
    def projector(self) -> Projector | ValueProjector | None:
        """Projects what the task is judged by; None before anything was measured."""
        evidence = self.analysis.evidence
        if evidence is None:
            return None
        if evidence.outputs.kind == "values":
            return ValueProjector(evidence, registry.REFERENCE, self.analysis.metric)
        return Projector(evidence, registry.REFERENCE)

    @cached_property
    def forms(self) -> LatencyModel:
        """Where tensors change their form on ONNX Runtime's CPU provider; its times mean nothing."""
        here = hardware_profiles.get(hardware_profiles.THIS_MACHINE)
        return LatencyModel(self.layers, self.size_bytes, self.precisions, here)

    @cached_property
    def verified(self) -> dict[tuple[str | None, ...], Verification]:
        """The latest verification of every map that was run, by precisions in layer order."""
        names = self.layers.names
        return {
            one.precisions: one
            for one in self.analysis.verifications
            if tuple(layer.name for layer in one.layers) == names
        }

    def derived(self, make: Callable[[Study], T]) -> T:
        """What `make` gives for this study, made once and kept with it: its solver, for instance."""
        return cast(T, self._derived.get(make, lambda: make(self)))

    @property
    def default_hardware(self) -> str:
        """The device that maps are priced on unless a person names one: this machine, if profiled."""
        profiled = self.analysis.profile is not None
        return hardware_profiles.THIS_MACHINE if profiled else hardware_profiles.DEFAULT

    @property
    def default_policy(self) -> Policy:
        """The document's method, as far as this analysis can answer it, on the default device."""
        return default_policy(self.precisions, self.default_hardware)

    def latency(self, hardware: str) -> LatencyModel:
        """The latency model of this analysis on `hardware`.

        This machine has the prices that its latest profile holds; without one the default device
        stands in, and `outcome` says so.
        """
        return self._latency.get(hardware, lambda: self._latency_model(hardware))

    def _latency_model(self, name: str) -> LatencyModel:
        tables = self.layers, self.size_bytes, self.precisions
        if name != hardware_profiles.THIS_MACHINE:
            return LatencyModel(*tables, hardware_profiles.get(name))
        if self.analysis.profile is None:
            return self.latency(hardware_profiles.DEFAULT)
        return MeasuredLatency(*tables, hardware_profiles.get(name), self.analysis.profile)

    def uniform_ms(self, hardware: str) -> dict[str, float]:
        """Estimated latency with every layer in one precision, by precision."""
        return self._uniform_ms.get(hardware, lambda: self._every_uniform_ms(hardware))

    def _every_uniform_ms(self, hardware: str) -> dict[str, float]:
        model = self.latency(hardware)
        codes = [
            np.where(self.layers.computes, code, NO_PRECISION).astype(np.int8)
            for code in range(len(self.precisions))
        ]
        times = [model.estimate(row).total.value or 0.0 for row in codes]
        return dict(zip(self.precisions, times, strict=True))

    def with_evidence(self, evidence: Evidence) -> Study:
        """The same model with other measurements; scores, sizes and prices are shared."""
        other = Study(replace(self.analysis, evidence=evidence))
        other.__dict__ |= {name: getattr(self, name) for name in ("scores", "size_bytes")}
        other._latency, other._uniform_ms = self._latency, self._uniform_ms
        return other

    def project(self, codes: NDArray[np.int8], *, divergence: bool = True) -> Projection | None:
        """Projection of a map, with `divergence` or faster without; None before anything was measured."""
        if self.projector is None:
            return None
        return self.projector.project(codes, divergence=divergence)
