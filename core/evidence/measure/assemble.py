"""From the outputs of runs to evidence: of all of them, or of those that are finished so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.evidence.evidence import Evidence, MetricRuns, Partial
from core.evidence.measure.keeper import Keeper
from core.evidence.measure.runs import Run
from core.evidence.shared_rounding import Pairs
from core.layers import LayerTable
from core.numerics.precision import Precision

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Assembler:
    """What all evidence of one measurement shares. `runs` are all but the baseline: layers
    alone, whole maps, then the probes of `codes`. `reference` is what `keeper` holds of the outputs
    of the model as it is, on samples that are some of `of_samples` or all of them.
    """

    layers: LayerTable
    precisions: tuple[Precision, ...]
    scheme: str
    runs: Sequence[Run]
    codes: NDArray[np.int8]
    keeper: Keeper
    reference: Floats
    targets: NDArray[Any] | None
    weight_sqnr_db: NDArray[np.float64]
    shared: Pairs
    of_samples: int
    baseline: Floats = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "baseline", self.keeper.read(self.reference))

    def position(self, run: Run) -> tuple[int, int]:
        """Where a layer alone stands in arrays [P, L, ...]."""
        return self.precisions.index(run.assignment[run.layer]), self.layers.index[run.layer]

    def whole(self, outputs: Floats, finite: Flags, metrics: MetricRuns | None) -> Evidence:
        """Evidence of all runs: `outputs` [R, N, K], and whether each run's were `finite` [R]."""
        return self._of(outputs, finite, np.arange(len(self.baseline)), None, metrics)

    def partial(
        self, outputs: Floats, finite: Flags, done: Flags, of_batch: Sequence[NDArray[np.int64]]
    ) -> tuple[Evidence, Partial] | None:
        """Evidence of what is `done`, by run and batch [R, B]; None before a layer alone is. The samples
        of each batch stand at `of_batch`.

        Where all runs of some batches are, it is of their samples; else of the batch with the most
        runs, and of the others in which the same ones are done.
        """
        batches = np.flatnonzero(done.all(axis=0))
        known = None
        if not len(batches):
            most = done[:, int(done.sum(axis=0).argmax())]
            alone = np.array([bool(run.layer) for run in self.runs])
            if not (most & alone).any():
                return None
            batches = np.flatnonzero(done[most].all(axis=0))
            known = most
        rows = np.sort(np.concatenate([of_batch[b] for b in batches.tolist()]))
        found = self._of(outputs, finite, rows, known, None)
        computes = self.layers.computes
        whole = computes if found.measured is None else found.measured.all(axis=0) & computes
        return found, Partial(int(whole.sum()), int(computes.sum()), len(rows), self.of_samples)

    def _of(
        self, outputs: Floats, finite: Flags, rows: NDArray[np.intp], known: Flags | None,
        metrics: MetricRuns | None,
    ) -> Evidence:  # fmt: skip
        """Evidence of the samples `rows`, and of the runs in `known` if it is given."""
        baseline = self.baseline[rows]
        shape = (len(self.precisions), len(self.layers))
        perturbations = np.zeros((*shape, *baseline.shape), dtype=np.float32)
        allowed, measured = np.ones(shape, dtype=np.bool_), np.ones(shape, dtype=np.bool_)
        if known is not None:
            measured[:, self.layers.computes] = False
        rest: list[Floats] = []
        every = len(rows) == outputs.shape[1]
        for i, run in enumerate(self.runs):
            if known is not None and not (known[i] and run.layer):
                continue
            given = outputs[i] if every else outputs[i, rows]
            with np.errstate(invalid="ignore", over="ignore"):
                change = self.keeper.read(given) - baseline
            if not run.layer:
                rest.append(np.nan_to_num(change, copy=False, nan=0.0, posinf=0.0, neginf=0.0))
                continue
            at = self.position(run)
            measured[at] = True
            allowed[at] = finite[i] and np.isfinite(change).all()
            if allowed[at]:
                perturbations[at] = change
        some = len(self.precisions) if known is None else 0
        codes = self.codes if known is None else self.codes[:0]
        return Evidence(
            precisions=tuple(p.name for p in self.precisions),
            scheme=self.scheme,
            baseline=baseline,
            targets=None if self.targets is None else self.targets[rows],
            perturbations=perturbations,
            whole=np.stack(rest[:some]) if some else np.zeros((0, *baseline.shape), np.float32),
            probe_codes=codes,
            probes=np.stack(rest[some:]) if len(codes) else np.zeros((0, *baseline.shape), np.float32),
            weight_sqnr_db=self.weight_sqnr_db,
            allowed=allowed,
            outputs=self.keeper.reader.outputs,
            metrics=metrics,
            measured=None if known is None else measured,
            shared=self.shared,
            entries=None if self.keeper.entries is None else self.keeper.entries[rows],
            of_samples=self.of_samples if len(rows) < self.of_samples else 0,
        )  # fmt: skip
