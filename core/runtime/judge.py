"""What outputs that were measured come to: the figures that projections have, from the samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.engines.engine import Floats
from core.estimate.projection import Projection, Projector
from core.estimate.values import ValueProjector
from core.evidence.evidence import Evidence, MetricRuns, spread_by_sample
from core.evidence.measure.keeper import Keeper
from core.evidence.measure.metric_runs import Judge, metric_runs
from core.evidence.measure.outputs import OutputReader
from core.evidence.scorers.logits import by_step
from core.numerics import precision as registry
from core.source.contract import ModelSource
from core.source.data import Split
from core.task import Metric


@dataclass(frozen=True, eq=False)
class Judged:
    """Figures of one run against another on one split. `flips` counts changed predictions, None
    for values.
    """

    figures: Projection
    flips: int | None


def judge(
    source: ModelSource, keeper: Keeper, split: Split, metric: Metric | None,
    reference: Floats, outputs: Floats,
) -> Judged:  # fmt: skip
    """What `outputs` lose against `reference` on `split`, both as `keeper` holds them, with sampling
    ranges.

    The run stands as the only layer of a model in the only precision it has, so that the figures
    of single layers serve it too.
    """
    reader, baseline = keeper.reader, keeper.read(reference)
    change = (keeper.read(outputs) - baseline).astype(np.float32)
    runs = None
    if source.metric is not None and split.targets is not None:
        by_hand = Judge(source.metric, reader, split)
        before, after = by_hand.score(reference), by_hand.score(outputs)
        runs = metric_runs(before, after[None, None], after[None], after[None])
    targets = None if source.metric is not None else keeper.targets(split)
    evidence = _evidence(reader, baseline, change, targets, runs)
    if reader.outputs.kind == "values":
        return Judged(ValueProjector(evidence, registry.REFERENCE, metric).alone(0, 1), None)
    projector = Projector(evidence, registry.REFERENCE)
    return Judged(projector.alone(0, 1), projector.figures(change).flips)


def _evidence(
    reader: OutputReader, baseline: Floats, change: Floats, targets: NDArray[Any] | None,
    runs: MetricRuns | None,
) -> Evidence:  # fmt: skip
    return Evidence(
        precisions=("run",),
        scheme="",
        baseline=baseline,
        targets=targets,
        perturbations=change[None, None],
        whole=change[None],
        probe_codes=np.zeros((1 if runs is not None else 0, 1), dtype=np.int8),
        probes=change[None] if runs is not None else np.zeros((0, *change.shape), np.float32),
        weight_sqnr_db=np.zeros((1, 1)),
        allowed=np.ones((1, 1), dtype=np.bool_),
        outputs=reader.outputs,
        metrics=runs,
    )


def sqnr_db(keeper: Keeper, reference: Floats, first: Floats, second: Floats) -> float | None:
    """Signal of `reference` over the difference of two runs, all as `keeper` holds them, in dB;
    None where they are equal.

    Logits are centred over the classes of a step; the signal of values is their deviation from
    the mean over samples.
    """
    kept, difference = keeper.read(reference), keeper.read(first) - keeper.read(second)
    outputs = keeper.reader.outputs
    steps = outputs.positions
    if outputs.kind == "values":
        signal = float(spread_by_sample(kept.astype(np.float64)).sum())
        noise = float(np.square(difference, dtype=np.float64).sum())
    else:
        signal, noise = _energy(kept, steps), _energy(difference, steps)
    if noise <= 0 or signal <= 0:
        return None
    return float(10 * np.log10(signal / noise))


def _energy(values: Floats, steps: int) -> float:
    given = by_step(values.astype(np.float64), steps)
    return float(np.square(given - given.mean(axis=-1, keepdims=True)).sum())
