"""Measuring a model: every layer alone in every precision, whole maps, and probes.

The runs are independent of one another; `planned_runs` lists them before anything is computed,
so that a dry run can say what the measurement will cost. They are made batch by batch. A layer
alone is a replay of what follows it where the model allows that, else a full pass with the same
numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from core.evidence.engine import Engine, Run, prepare
from core.evidence.evidence import Calibration, Evidence, Measured
from core.evidence.memory import batches
from core.evidence.scheme import Scheme
from core.evidence.simulate import Assignment, Simulator
from core.evidence.weights import weight_sqnr_db
from core.layers import LayerTable
from core.precision import Precision
from core.source.contract import ModelSource
from core.source.ownership import owners

PROBES = 12
PROBE_SEED = 20211
Progress = Callable[[int, int, str], None]


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
    """Every run of a measurement, in the order it is made: baseline, alone, whole, probes."""
    runs = [Run("baseline", {})]
    runs += [
        Run(f"{layer.name} in {precision.name}", {layer.name: precision}, layer.name)
        for layer in layers
        if layer.computes_at_inference
        for precision in precisions
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
        owner[name] = name
    simulator = Simulator(source.model, layers, owner, scheme)
    simulator.calibrate(source.calibration.inputs)
    return simulator


def measure(
    source: ModelSource,
    layers: LayerTable,
    scheme: Scheme,
    precisions: tuple[Precision, ...],
    *,
    expand_units: bool = False,
    probes: int = PROBES,
    memory_bytes: int | None = None,
    progress: Progress = lambda done, total, label: None,
) -> Measured:
    """Simulate every run of `planned_runs` on the selection split.

    `progress(done, total, label)` is called before each run of each batch. Peak memory is kept
    within `memory_bytes` (half of what is free if None) by smaller batches, which do not change
    the numbers. Does not change the model. Raises `PolicyError` if the bound is too small.
    """
    start = time.perf_counter()
    simulator = make_simulator(source, layers, scheme, expand_units=expand_units)
    runs = planned_runs(layers, precisions, probes)
    engine = prepare(simulator, source, precisions, len(runs), memory_bytes)
    baseline, changes = _changes(engine, source, runs, progress)
    perturbations = np.zeros((len(precisions), len(layers), *baseline.shape), dtype=np.float32)
    allowed = np.ones(perturbations.shape[:2], dtype=np.bool_)
    rest: list[NDArray[np.float32]] = []
    by_name = {p.name: i for i, p in enumerate(precisions)}
    for run, change in zip(runs[1:], changes, strict=True):
        if not run.layer:
            rest.append(np.nan_to_num(change, copy=False, nan=0.0, posinf=0.0, neginf=0.0))
            continue
        at = (by_name[run.assignment[run.layer].name], layers.index[run.layer])
        if np.isfinite(change).all():
            perturbations[at] = change
        else:
            allowed[at] = False
    whole = np.stack(rest[: len(precisions)])
    shape_probes = (probes, *baseline.shape)
    simulated = np.stack(rest[len(precisions) :]) if probes else np.zeros(shape_probes, np.float32)
    targets = source.selection.targets
    tensors = dict(source.model.state_dict(keep_vars=True))
    evidence = Evidence(
        precisions=tuple(p.name for p in precisions),
        scheme=scheme.name,
        baseline=baseline,
        targets=None if targets is None else targets.numpy().astype(np.int64),
        perturbations=perturbations,
        whole=whole,
        probe_codes=probe_codes(layers, precisions, probes),
        probes=simulated,
        weight_sqnr_db=weight_sqnr_db(layers, tensors, precisions),
        allowed=allowed,
    )
    ranges = tuple(
        Calibration(*site, seen.low, seen.high) for site, seen in sorted(simulator.ranges.items())
    )
    return Measured(evidence, ranges, time.perf_counter() - start, engine.notes())


def _changes(
    engine: Engine, source: ModelSource, runs: Sequence[Run], progress: Progress
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The model's own outputs [N, K], and the change of each further run, [R - 1, N, K]."""
    parts = batches(len(source.selection), engine.batch)
    total, done = len(runs) * len(parts), 0
    baseline, changes = np.zeros(0, np.float32), np.zeros(0, np.float32)
    progress(0, total, runs[0].label)
    for part in parts:
        outputs = engine.run(source.selection.inputs[part], runs)
        for i, run in enumerate(runs):
            progress(done, total, run.label)
            output = next(outputs)
            done += 1
            if not changes.size:
                shape = (len(source.selection), output.shape[1])
                baseline = np.empty(shape, dtype=np.float32)
                changes = np.empty((len(runs) - 1, *shape), dtype=np.float32)
            if i == 0:
                baseline[part] = output
            else:
                with np.errstate(invalid="ignore", over="ignore"):
                    np.subtract(output, baseline[part], out=changes[i - 1, part])
    progress(total, total, "done")
    return baseline, changes
