"""Measuring a model: every layer alone in every precision, whole maps, and probes.

The runs are independent of one another; `planned_runs` lists them before anything is computed,
so that a dry run can say what the measurement will cost. They are made batch by batch. A layer
alone is a replay of what follows it where the model allows that, else a full pass with the same
numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from core.engines.engine import Assignment, Engine
from core.engines.engines import engine_of, stored_tensors
from core.evidence.diagnose.weights import weight_sqnr_db
from core.evidence.evidence import Evidence, Measured, MetricRuns, Partial
from core.evidence.measure.assemble import Assembler
from core.evidence.measure.cache import Cache, Unit
from core.evidence.measure.collect import Collected, Progress, Reference, collect, reference_outputs
from core.evidence.measure.draw import FEW, Draw, draw, order
from core.evidence.measure.metric_runs import Judge, metric_runs
from core.evidence.measure.model_notes import is_plain
from core.evidence.measure.outputs import OutputReader, read
from core.evidence.measure.partial_results import PartialResults
from core.evidence.measure.run_cache import RunCache, no_run_cache, open_run_cache
from core.evidence.measure.runs import Run, Runner, prepare
from core.evidence.measure.settled import settled
from core.evidence.measure.workers import Work, check
from core.evidence.options import FIRST_LOOK, MeasureOptions
from core.evidence.shared_rounding import shared_rounding
from core.layers import LayerTable
from core.numerics.calibrate.calibration import Calibration
from core.numerics.precision import Precision
from core.numerics.states import lacking, state_in
from core.source.batches import pick
from core.source.contract import ModelSource
from core.source.data import Split

OnPartial = Callable[[Evidence, tuple[Calibration, ...], Partial], None]
PROBE_SEED = 20211


def probe_codes(
    layers: LayerTable, precisions: tuple[Precision, ...], count: int, seed: int = PROBE_SEED
) -> NDArray[np.int8]:
    """Whole maps spread over the shares of the narrowest precision, shape [M, L].

    Map m puts a random (m + 1) / (count + 1) of the computing layers into the narrowest
    precision; each of the others is equally likely to be in any other one or the reference. Where
    formats of weights alone are measured too, maps take turns: the narrowest that rounds
    activations, and the narrowest of weights alone, in which a layer without such weights takes
    the other.
    """
    rng = np.random.default_rng(seed)
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
class Setup:
    """What a measurement stands on before its first run: the `runs` it makes, who makes them, and who
    reads their outputs.
    """

    runs: Sequence[Run]
    runner: Runner
    reader: OutputReader


def set_up(source: ModelSource, layers: LayerTable, options: MeasureOptions) -> Setup:
    """Calibrate the engine of `source` and choose how runs are made. What does not fit is said here,
    before the hours of measuring. Raises `PolicyError` if the memory allowed is too small.
    """
    reader, runs = read(source), planned_runs(layers, options)
    if source.metric is None:  # which takes targets of any form
        reader.targets(source.selection)
    engine = make_simulator(source, layers, options)
    runner = prepare(engine, source, reader, len(runs), options)
    return Setup(runs, replace(runner, is_drawn=is_plain(source)), reader)


@dataclass(frozen=True, eq=False)
class _Measuring:
    """What runs on samples of `source` are held against and put together by, and how long since."""

    source: ModelSource
    layers: LayerTable
    options: MeasureOptions
    ready: Setup
    drawn: Draw
    reference: Reference
    assembler: Assembler
    ranges: tuple[Calibration, ...]
    start: float

    @classmethod
    def of(
        cls, source: ModelSource, layers: LayerTable, options: MeasureOptions, ready: Setup,
        drawn: Draw, everything: bool, of_samples: int, look: FirstLook | None = None,
    ) -> Self:  # fmt: skip
        """For runs on the selection split of `source`, part of one of `of_samples`, in the order of
        `drawn`; `everything` says that all outputs are held. What a `look` found of the weights holds.
        """
        start, runner = time.perf_counter(), ready.runner
        reference = reference_outputs(runner, source, ready.reader, drawn, everything=everything)
        keeper, precisions = reference.keeper, options.precisions
        ranges = runner.simulator.ranges.to_store()
        assembler = Assembler(
            layers, precisions, options.scheme.name, ready.runs[1:],
            probe_codes(layers, precisions, options.probes), keeper, reference.held,
            None if source.metric is not None else keeper.targets(source.selection),
            _weight_sqnr(source, layers, precisions)
            if look is None else look.measured.evidence.weight_sqnr_db,
            shared_rounding(ranges, layers.index),
            of_samples,
        )  # fmt: skip
        return cls(source, layers, options, ready, drawn, reference, assembler, ranges, start)

    def run_cache(self, cache: Cache | None, *, is_look: bool) -> RunCache:
        """Where finished runs are kept."""
        if cache is None:
            return no_run_cache()
        keeper = self.assembler.keeper
        return open_run_cache(
            cache, self.ready.runner, self.source, self.layers, self.reference.sha256,
            self.ready.runs, everything=keeper.everything, entries=keeper.reader.entries,
            is_quiet=is_look,
        )  # fmt: skip

    def collect(
        self, run_cache: RunCache, on_partial: OnPartial | None, progress: Progress,
        known: Mapping[int, Unit], jobs: int = 1,
    ) -> Collected:  # fmt: skip
        """Make the runs; those in `known` are made on the first batch."""
        runner, options = self.ready.runner, self.options
        engine = runner.simulator
        work = Work(
            self.source.model, self.drawn, self.source.output, self.layers, engine.owner,
            options.scheme, engine.ranges, runner.need, runner.batch, runner.reason,
            tuple(self.ready.runs), self.assembler.keeper, self.reference.width,
            self.reference.held.shape[1], torch.get_num_threads(), jobs,
        )  # fmt: skip
        publish = None
        if on_partial is not None:
            publish = lambda evidence, part: on_partial(evidence, self.ranges, part)  # noqa: E731
        return collect(
            runner, work, run_cache, progress, PartialResults(self.assembler, publish), known,
            jobs=jobs, is_enough=self._is_enough if options.until == "ranked" else None,
        )  # fmt: skip

    def _is_enough(self, found: Collected) -> bool:
        return settled(self._partly(found)[0])

    def _partly(self, found: Collected) -> tuple[Evidence, Partial]:
        seen = self.assembler.partial(found.outputs, found.finite, found.done, found.rows)
        assert seen is not None
        return seen

    def partly(self, found: Collected, key: str = "") -> Measured:
        """Of runs that were made on some of the samples."""
        evidence, partial = self._partly(found)
        return replace(self.measured(found, evidence, key), partial=partial)

    def measured(self, found: Collected, evidence: Evidence, key: str) -> Measured:
        """Of all runs on all samples, kept under `key`."""
        engine, runner = self.ready.runner.simulator, self.ready.runner
        said = (*engine.notes(self.options.precisions), *runner.notes(found.full_passes))
        return Measured(evidence, self.ranges, time.perf_counter() - self.start, said, key)


@dataclass(frozen=True, eq=False)
class FirstLook:
    """A first look: what was `measured` of a few samples, and the finished `units` of each run on
    them, by the run's place.
    """

    measured: Measured
    units: Mapping[int, Unit]


def first_look(
    source: ModelSource,
    layers: LayerTable,
    options: MeasureOptions,
    ready: Setup,
    *,
    cache: Cache | None = None,
    progress: Progress = lambda done, total, label: None,
    on_partial: OnPartial | None = None,
) -> FirstLook | None:
    """Make every run on the samples that are drawn first; None where there are so few that all are,
    and where none may be drawn.

    The arguments are those of `measure`, which takes what is found for its own first batch.
    """
    split = source.selection
    samples = len(split)
    if samples < FEW or not ready.runner.is_drawn:
        return None
    rows = order(samples)[:FIRST_LOOK]
    here = np.sort(rows)
    targets = None if source.metric is not None else pick(split.targets, here)
    few = replace(source, selection=Split(pick(split.inputs, here), targets))
    judged = source.metric is not None and split.targets is not None
    total = len(ready.runs) * len(ready.runner.parts(samples))
    progress(0, total, ready.runs[0].label)
    drawn = Draw(few.selection.inputs, np.searchsorted(here, rows), here)
    measuring = _Measuring.of(few, layers, options, ready, drawn, judged, samples)
    found = measuring.collect(
        measuring.run_cache(cache, is_look=True), on_partial,
        lambda done, _, label: progress(done, total, label), {},
    )  # fmt: skip
    return FirstLook(measuring.partly(found), found.first)


def measure(
    source: ModelSource,
    layers: LayerTable,
    options: MeasureOptions,
    *,
    ready: Setup | None = None,
    look: FirstLook | None = None,
    cache: Cache | None = None,
    progress: Progress = lambda done, total, label: None,
    on_partial: OnPartial | None = None,
) -> Measured:
    """Simulate every run of `planned_runs` on the selection split, in batches of samples drawn at
    random: all of them, or as many as settle the ranking of the layers where `options` say so.

    `layers` are those of `options`, `ready` is what `set_up` made of them, and `look` what
    `first_look` found, which is not measured again. `progress(done, total, label)` is called before
    each run of each batch. Peak memory is kept within its bound by smaller batches, which do not change
    the numbers. What `cache` holds is not measured again. `on_partial` is given what is measured so
    far, now and then. Does not change the model. Raises `PolicyError` if the bound is too small
    and `ModelError` where the reference outputs are not finite.
    """
    ready = ready or set_up(source, layers, options)
    runner, split = ready.runner, source.selection
    judge = None
    if source.metric is not None and split.targets is not None:
        judge = Judge(source.metric, ready.reader, split)
    check(runner, split.inputs, options.jobs)
    total = len(ready.runs) * len(runner.parts(len(split)))
    if look is None:
        progress(0, total, ready.runs[0].label)
    measuring = _Measuring.of(
        source,
        layers,
        options,
        ready,
        draw(split.inputs, is_drawn=runner.is_drawn),
        judge is not None,
        len(split),
        look,
    )
    # What is wrong with the model or the metric is said before the hours of measuring.
    first = None if judge is None else judge.score(measuring.reference.held)
    run_cache = measuring.run_cache(cache, is_look=False)
    known: Mapping[int, Unit] = {} if look is None else look.units
    found = measuring.collect(run_cache, on_partial, progress, known, options.jobs)
    progress(total, total, "done")
    if not found.done.all():
        return measuring.partly(found, run_cache.key)
    metrics = None
    if judge is not None and first is not None:
        metrics = _judged(judge, first, found, measuring.assembler)
    evidence = measuring.assembler.whole(found.outputs, found.finite, metrics)
    return measuring.measured(found, evidence, run_cache.key)


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
