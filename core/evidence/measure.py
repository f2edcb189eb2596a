"""Measuring a model: every layer alone in every precision, whole maps, and probes.

The runs are independent forward passes over the selection split. `planned_runs` lists them
before anything is computed, so that a dry run can say what the measurement will cost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.errors import ModelError
from core.evidence.evidence import Calibration, Evidence, Measured
from core.evidence.judging import Judge, metric_runs
from core.evidence.reading import read
from core.evidence.scheme import Scheme
from core.evidence.simulate import Assignment, Simulator
from core.evidence.weights import weight_sqnr_db
from core.layers import ROOT, LayerTable
from core.precision import Precision
from core.source.batches import count, take
from core.source.contract import ModelSource
from core.source.ownership import owners

PROBES = 12
PROBE_SEED = 20211
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Run:
    """One pass over the selection split: which layers leave the reference precision."""

    label: str
    assignment: Assignment


def probe_codes(
    layers: LayerTable, precisions: tuple[Precision, ...], count: int = PROBES
) -> NDArray[np.int8]:
    """Whole maps spread over the shares of the narrowest precision, shape [M, L].

    Map m puts a random (m + 1) / (count + 1) of the computing layers into the narrowest
    precision; each of the others is equally likely to be in any wider one or the reference.
    """
    rng = np.random.default_rng(PROBE_SEED)
    codes = np.full((count, len(layers)), -1, dtype=np.int8)
    movable = np.flatnonzero(layers.computes)
    narrowest = int(np.argmin([p.bits for p in precisions]))
    others = [-1, *(i for i in range(len(precisions)) if i != narrowest)]
    for m in range(count):
        chosen = rng.permutation(movable)
        cut = round(len(movable) * (m + 1) / (count + 1))
        codes[m, chosen[:cut]] = narrowest
        codes[m, chosen[cut:]] = rng.choice(others, size=len(movable) - cut)
    return codes


def assignment_of(
    codes: NDArray[np.int8], layers: LayerTable, precisions: tuple[Precision, ...]
) -> Assignment:
    """Layer -> precision for a row of codes; the reference (-1) is left out."""
    return {layers.names[i]: precisions[c] for i, c in enumerate(codes) if c >= 0}


def planned_runs(
    layers: LayerTable, precisions: tuple[Precision, ...], probes: int = PROBES
) -> list[Run]:
    """Every pass of a measurement, in the order it is made: baseline, alone, whole, probes."""
    runs = [Run("baseline", {})]
    for precision in precisions:
        runs += [
            Run(f"{layer.name} in {precision.name}", {layer.name: precision})
            for layer in layers
            if layer.computes_at_inference
        ]
    runs += [Run(f"all layers in {p.name}", dict.fromkeys(layers.names, p)) for p in precisions]
    runs += [
        Run(f"probe {m + 1}", assignment_of(row, layers, precisions))
        for m, row in enumerate(probe_codes(layers, precisions, probes))
    ]
    return runs


def make_simulator(
    source: ModelSource, layers: LayerTable, scheme: Scheme, *, expand_units: bool = False
) -> Simulator:
    """A simulator of `source.model`, calibrated on the calibration split."""
    owner = owners(source.model, source.units, expand_units)
    for name in layers.names:  # containers that turned out to compute on their own
        owner["" if name == ROOT else name] = name
    simulator = Simulator(source.model, layers, owner, scheme, source.output)
    simulator.calibrate(source.calibration.inputs)
    return simulator


def predict_seconds(simulator: Simulator, source: ModelSource, runs: int) -> float:
    """Estimated duration of `runs` passes, from one small batch of the selection split."""
    inputs = take(source.selection.inputs, 0, 64)
    simulator.run({}, take(inputs, 0, 8))
    start = time.perf_counter()
    simulator.run({}, inputs)
    return (time.perf_counter() - start) / count(inputs) * len(source.selection) * runs


def measure(
    source: ModelSource,
    layers: LayerTable,
    scheme: Scheme,
    precisions: tuple[Precision, ...],
    *,
    expand_units: bool = False,
    probes: int = PROBES,
    progress: Progress = lambda done, total, label: None,
) -> Measured:
    """Simulate every run of `planned_runs` on the selection split.

    `progress(done, total, label)` is called before each pass. Does not change the model. Raises
    `ModelError` where the reference outputs are not finite.
    """
    start = time.perf_counter()
    reading = read(source)
    targets = None if source.metric is not None else reading.targets(source.selection)
    simulator = make_simulator(source, layers, scheme, expand_units=expand_units)
    inputs = source.selection.inputs
    runs = planned_runs(layers, precisions, probes)
    total = len(runs)
    progress(0, total, runs[0].label)
    reference = simulator.run({}, inputs)
    _check_finite(reference)
    baseline = reading.keep(reference)
    judge = None
    if source.metric is not None and source.selection.targets is not None:
        judge = Judge(source.metric, reading, source.selection)
    shape = (len(precisions), len(layers), *baseline.shape)
    perturbations = np.zeros(shape, dtype=np.float32)
    allowed = np.ones(shape[:2], dtype=np.bool_)
    rest: list[NDArray[np.float32]] = []
    by_name = {p.name: i for i, p in enumerate(precisions)}
    first = None if judge is None else judge.score(reference)
    alone = None if first is None else np.tile(first, (*shape[:2], 1))
    others: list[NDArray[np.float64]] = []
    for done, run in enumerate(runs[1:], start=1):
        progress(done, total, run.label)
        found = simulator.run(run.assignment, inputs)
        with np.errstate(invalid="ignore", over="ignore"):
            change = reading.keep(found) - baseline
        if done > total - 1 - len(precisions) - probes:
            rest.append(np.nan_to_num(change, nan=0.0, posinf=0.0, neginf=0.0))
            if judge is not None:
                others.append(judge.score(np.where(np.isfinite(found), found, reference)))
            continue
        ((name, precision),) = run.assignment.items()
        at = (by_name[precision.name], layers.index[name])
        if not np.isfinite(found).all() or not np.isfinite(change).all():
            allowed[at] = False
            continue
        perturbations[at] = change
        if judge is not None and alone is not None:
            alone[at] = judge.score(found)
    progress(total, total, "done")
    count_whole = len(precisions)
    shape_probes = (probes, *baseline.shape)
    simulated = np.stack(rest[count_whole:]) if probes else np.zeros(shape_probes, np.float32)
    metrics = None
    if first is not None and alone is not None:
        scored = np.array(others).reshape(-1, len(first))
        metrics = metric_runs(first, alone, scored[:count_whole], scored[count_whole:])
    evidence = Evidence(
        precisions=tuple(p.name for p in precisions),
        scheme=scheme.name,
        baseline=baseline,
        targets=targets,
        perturbations=perturbations,
        whole=np.stack(rest[:count_whole]),
        probe_codes=probe_codes(layers, precisions, probes),
        probes=simulated,
        weight_sqnr_db=weight_sqnr_db(
            layers, dict(source.model.state_dict(keep_vars=True)), precisions
        ),
        allowed=allowed,
        outputs=reading.outputs,
        metrics=metrics,
    )
    ranges = tuple(
        Calibration(*site, seen.low, seen.high) for site, seen in sorted(simulator.ranges.items())
    )
    return Measured(evidence, ranges, time.perf_counter() - start)


def _check_finite(reference: NDArray[np.float32]) -> None:
    bad = np.flatnonzero(~np.isfinite(reference).all(axis=1))
    if len(bad):
        raise ModelError(
            f"The model's own outputs are NaN or infinite, first on selection sample {bad[0]}.",
            "Run it on that sample in FP32 and mend the model or leave the sample out.",
        )
