"""Measuring a model: every layer alone in every precision, whole maps, and probes.

The runs are independent of one another; `planned_runs` lists them before anything is computed,
so that a dry run can say what the measurement will cost. They are made batch by batch. A layer
alone is a replay of what follows it where the model allows that, else a full pass with the same
numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from core.engines.engine import Assignment, Engine
from core.engines.engines import engine_of, stored_tensors
from core.evidence.diagnose.weights import weight_sqnr_db
from core.evidence.evidence import Evidence, Measured, MetricRuns, Partial
from core.evidence.measure.assemble import Assembler
from core.evidence.measure.cache import Cache
from core.evidence.measure.collect import Collected, Progress, collect, reference_outputs
from core.evidence.measure.draw import draw
from core.evidence.measure.metric_runs import Judge, metric_runs
from core.evidence.measure.outputs import OutputReader, read
from core.evidence.measure.partial_results import PartialResults
from core.evidence.measure.run_cache import no_run_cache, open_run_cache
from core.evidence.measure.runs import Run, Runner, prepare
from core.evidence.measure.settled import settled
from core.evidence.measure.workers import Work, check
from core.evidence.options import MeasureOptions
from core.evidence.shared_rounding import shared_rounding
from core.layers import LayerTable
from core.numerics.calibrate.calibration import Calibration
from core.numerics.precision import Precision
from core.numerics.states import lacking, state_in
from core.source.contract import ModelSource

OnPartial = Callable[[Evidence, tuple[Calibration, ...], Partial], None]
PROBE_SEED = 20211


def probe_codes(
    layers: LayerTable, precisions: tuple[Precision, ...], count: int
) -> NDArray[np.int8]:
    """Whole maps spread over the shares of the narrowest precision, shape [M, L].

    Map m puts a random (m + 1) / (count + 1) of the computing layers into the narrowest
    precision; each of the others is equally likely to be in any other one or the reference. Where
    formats of weights alone are measured too, maps take turns: the narrowest that rounds
    activations, and the narrowest of weights alone, in which a layer without such weights takes
    the other.
    """
    rng = np.random.default_rng(PROBE_SEED)
    codes = np.full((count, len(layers)), -1, dtype=np.int8)
    movable = np.flatnonzero(layers.computes)
    # Of equally narrow ones that which means something for most layers.
    by_width = sorted(
        range(len(precisions)), key=lambda i: (precisions[i].width, not precisions[i].is_calibrated)
    )
    turns = [
        next(i for i in by_width if precisions[i].is_weights_only == alone)
        for alone in sorted({p.is_weights_only for p in precisions})
    ]
    lacks = lacking(layers, precisions)
    for m in range(count):
        narrowest = turns[m % len(turns)]
        others = [-1, *(i for i in range(len(precisions)) if i != narrowest)]
        chosen = rng.permutation(movable)
        cut = round(len(movable) * (m + 1) / (count + 1))
        narrow = chosen[:cut]
        codes[m, narrow] = np.where(lacks[narrowest, narrow], turns[0], narrowest)
        codes[m, chosen[cut:]] = rng.choice(others, size=len(movable) - cut)
    return codes


def assignment_of(
    codes: NDArray[np.int8], layers: LayerTable, precisions: tuple[Precision, ...]
) -> Assignment:
    """Layer -> precision for a row of codes; the reference (-1) is left out."""
    return {layers.names[i]: precisions[c] for i, c in enumerate(codes) if c >= 0}


def planned_runs(layers: LayerTable, options: MeasureOptions) -> list[Run]:
    """Every run of a measurement, in the order it is made: baseline, alone, whole, probes."""
    precisions = options.precisions
    runs = [Run("baseline", {})]
    runs += [
        Run(
            f"{layer.name} in {precision.name}",
            {layer.name: precision},
            layer.name,
            idle=not precision.is_calibrated and state_in(layer, precision) == "float",
        )
        for layer in layers
        if layer.computes_at_inference
        for precision in precisions
    ]
    runs += [Run(f"all layers in {p.name}", dict.fromkeys(layers.names, p)) for p in precisions]
    runs += [
        Run(f"probe {m + 1}", assignment_of(row, layers, precisions))
        for m, row in enumerate(probe_codes(layers, precisions, options.probes))
    ]
    return runs


def make_simulator(source: ModelSource, layers: LayerTable, options: MeasureOptions) -> Engine:
    """The engine of `source.model`, calibrated on the calibration split."""
    engine = engine_of(
        source, layers, options.scheme, options.calibrator, expand_units=options.expand_units
    )
    engine.calibrate(source.calibration.inputs)
    return engine


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a measurement stands on before its first run: the `runs` it makes, who makes them, and who
    reads their outputs.
    """

    runs: Sequence[Run]
    runner: Runner
    reader: OutputReader


def prepared(source: ModelSource, layers: LayerTable, options: MeasureOptions) -> Prepared:
    """Calibrate the engine of `source` and choose how runs are made. What does not fit is said here,
    before the hours of measuring. Raises `PolicyError` if the memory allowed is too small.
    """
    reader, runs = read(source), planned_runs(layers, options)
    if source.metric is None:  # which takes targets of any form
        reader.targets(source.selection)
    engine = make_simulator(source, layers, options)
    return Prepared(runs, prepare(engine, source, reader, len(runs), options), reader)


def measure(
    source: ModelSource,
    layers: LayerTable,
    options: MeasureOptions,
    *,
    ready: Prepared | None = None,
    cache: Cache | None = None,
    progress: Progress = lambda done, total, label: None,
    on_partial: OnPartial | None = None,
) -> Measured:
    """Simulate every run of `planned_runs` on the selection split, as far as `options` say.

    `layers` are those of `options`, and `ready` is what `prepared` made of them. `progress(done, total, label)` is called before each run of
    each batch. Peak memory is kept within its bound by smaller batches, which do not change the
    numbers. What `cache` holds is not measured again. `on_partial` is given what is measured so
    far, now and then. Does not change the model. Raises `PolicyError` if the bound is too small
    and `ModelError` where the reference outputs are not finite.
    """
    start = time.perf_counter()
    ready = ready or prepared(source, layers, options)
    runs, runner, reader = ready.runs, ready.runner, ready.reader
    judge = None
    if source.metric is not None and source.selection.targets is not None:
        judge = Judge(source.metric, reader, source.selection)
    precisions, scheme, jobs = options.precisions, options.scheme, options.jobs
    simulator, drawn = runner.simulator, draw(source.selection.inputs)
    check(runner, source.selection.inputs, jobs)
    progress(0, len(runs) * len(runner.parts(len(source.selection))), runs[0].label)
    reference = reference_outputs(runner, source, reader, drawn, everything=judge is not None)
    keeper = reference.keeper
    targets = None if source.metric is not None else keeper.targets(source.selection)
    # What is wrong with the model or the metric is said before the hours of measuring.
    first = None if judge is None else judge.score(reference.held)
    run_cache = no_run_cache()
    if cache is not None:
        run_cache = open_run_cache(
            cache,
            runner,
            source,
            layers,
            reference.sha256,
            runs,
            everything=bool(judge),
            entries=reader.entries,
        )
    work = Work(
        source.model, drawn, source.output, layers, simulator.owner, scheme,
        simulator.ranges, runner.need, runner.batch, runner.reason, tuple(runs),
        keeper, reference.width, reference.held.shape[1], torch.get_num_threads(), jobs,
    )  # fmt: skip
    ranges = simulator.ranges.to_store()
    assembler = Assembler(
        layers, precisions, scheme.name, runs[1:], probe_codes(layers, precisions, options.probes), keeper,
        reference.held, targets, _weight_sqnr(source, layers, precisions),
        shared_rounding(ranges, layers.index),
    )  # fmt: skip
    publish = None
    if on_partial is not None:
        publish = lambda evidence, how_far: on_partial(evidence, ranges, how_far)  # noqa: E731

    def is_enough(so_far: Collected) -> bool:
        seen = assembler.partial(so_far.outputs, so_far.finite, so_far.done, so_far.rows)
        return seen is not None and settled(seen[0])

    found = collect(
        runner, work, run_cache, progress, PartialResults(assembler, publish), jobs=jobs,
        until=options.until, is_enough=is_enough,
    )  # fmt: skip
    said = (*simulator.notes(precisions), *runner.notes(found.full_passes))
    seconds = time.perf_counter() - start
    if not found.done.all():
        seen = assembler.partial(found.outputs, found.finite, found.done, found.rows)
        assert seen is not None
        return Measured(seen[0], ranges, seconds, said, run_cache.key, seen[1])
    metrics = None
    if judge is not None and first is not None:
        metrics = _judged(judge, first, found, assembler)
    evidence = assembler.whole(found.outputs, found.finite, metrics)
    return Measured(evidence, ranges, seconds, said, run_cache.key)


def _weight_sqnr(
    source: ModelSource, layers: LayerTable, precisions: tuple[Precision, ...]
) -> NDArray[np.float64]:
    return weight_sqnr_db(layers, stored_tensors(layers, source.model), precisions)


def _judged(
    judge: Judge, first: NDArray[np.float64], found: Collected, assembler: Assembler
) -> MetricRuns:
    """The custom metric of every run. Where outputs are not finite, a layer alone has that of
    the reference model and a whole map is judged with the reference's outputs in their place.
    """
    precisions = len(assembler.precisions)
    alone = np.tile(first, (precisions, len(assembler.layers), 1))
    others: list[NDArray[np.float64]] = []
    for run, outputs, finite in zip(assembler.runs, found.outputs, found.finite, strict=True):
        if not run.layer:
            usable = np.where(np.isfinite(outputs), outputs, assembler.reference)
            others.append(judge.score(usable))
        elif finite:
            alone[assembler.position(run)] = judge.score(outputs)
    scored = np.array(others).reshape(-1, len(first))
    return metric_runs(first, alone, scored[:precisions], scored[precisions:])
