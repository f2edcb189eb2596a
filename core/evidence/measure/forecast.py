"""How long an analysis will take: its runs, and its look at every layer by itself.

Everything is counted in samples that go through the model, or a part of it, and two small batches
say what a sample costs, forward and backward. Processor time of the thread that leads is counted: it
is what an idle machine takes, whatever else runs on this one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.engines.engine import Engine
from core.engines.torch.simulate.folding import seen_at
from core.evidence.diagnose.curvature import pull_back
from core.evidence.diagnose.local_measure import (
    DRAWS,
    MOST_SAMPLES,
    REMEDY_SAMPLES,
    batches,
    few,
    has_gradients,
)
from core.evidence.measure.draw import FEW
from core.evidence.measure.outputs import Floats, OutputReader
from core.evidence.measure.runs import Run, Runner
from core.evidence.options import FIRST_LOOK, MeasureOptions
from core.layers import Layer, LayerTable
from core.numerics.precision import Precision
from core.source.batches import Inputs, count, take
from core.source.contract import ModelSource

TIMED = 64
"""Samples that a pass is timed on."""
BACKWARD_TIMED, REDUCED, SINGLES = 8, 8, 8
UNKNOWN_SHARE = 0.5
"""Part of a pass that a look at a layer takes, on average, where no recording tells."""


@dataclass(frozen=True, slots=True)
class Duration:
    """Estimated `seconds` of an analysis on an idle machine, those after which its first look is there
    (`first_look`, None where all samples are measured at once), and what each precision `adds`: its
    layers alone and the look at what they err. Probes, the reference and remedies are of all.
    """

    seconds: float
    first_look: float | None
    adds: Mapping[str, float]


def duration_of(
    runner: Runner, source: ModelSource, layers: LayerTable, reader: OutputReader,
    runs: Sequence[Run], options: MeasureOptions,
) -> Duration:  # fmt: skip
    """Estimated duration of an analysis that makes `runs`, whose outputs `reader` reads, in as many
    processes as `options` say.
    """
    inputs = take(source.selection.inputs, 0, min(TIMED, runner.batch))
    simulator = runner.simulator
    simulator.run({}, take(inputs, 0, 8))
    start = time.thread_time()
    outputs = simulator.run({}, inputs)
    each = (time.thread_time() - start) / count(inputs)
    reducing = len(runs) * _reducing_seconds(reader, outputs[:REDUCED])
    shares = {} if runner.reason else runner.replayer.shares(inputs)
    made = [run for run in runs if not run.idle]
    whole = _map_cost(simulator, made, inputs, each) if has_gradients(source) else 1.0
    part = [shares.get(run.layer, 1.0) if run.layer else whole for run in made]
    single = [simulator.one_by_one(run.assignment, inputs) for run in made]
    cost = _single_cost(runner, inputs, each) if any(single) else 0.0
    part = [p * (cost if s else 1.0) for p, s in zip(part, single, strict=True)]
    passes = sum(part) + cost  # a pass is recorded so, too
    holdout = 0 if source.holdout is None else len(source.holdout)
    once = len(source.calibration) + len(source.selection) + holdout
    looks = runner.replayer.looks(inputs)
    alone = _local_samples(runner, source, layers, options.precisions, looks)
    gradients = _gradient_seconds(source, layers) if has_gradients(source) else 0.0
    shared, samples = passes * len(source.selection) / options.jobs, len(source.selection)
    total = each * (shared + once + alone) + reducing * samples / options.jobs + gradients
    errors = _pulled_back(source) * sum(
        _look(layer, looks) for layer in layers if layer.computes_at_inference
    )
    adds = {p.name: each * errors for p in options.precisions}
    for run, cost_of in zip(made, part, strict=True):
        if run.layer:
            name = run.assignment[run.layer].name
            adds[name] += (each * cost_of + reducing / len(runs)) * samples / options.jobs
    look = (
        None
        if samples < FEW or not runner.is_drawn
        else _first_look_seconds(simulator, inputs, passes + 1)
    )
    if look is not None and options.until == "first look":
        total = look + each * holdout
    return Duration(total, look, adds)


def _first_look_seconds(simulator: Engine, inputs: Inputs, passes: float) -> float:
    """Estimated time of so many passes over the samples of a first look."""
    few = take(inputs, 0, FIRST_LOOK)
    start = time.thread_time()
    simulator.run({}, few)
    return (time.thread_time() - start) * passes


def _pulled_back(source: ModelSource) -> int:
    """Samples on which layers' errors are held against gradients."""
    return min(len(source.calibration), MOST_SAMPLES) if has_gradients(source) else 0


def _look(layer: Layer, looks: Mapping[str, float]) -> float:
    return looks.get(layer.name, UNKNOWN_SHARE)


def _map_cost(simulator: Engine, runs: Sequence[Run], inputs: Inputs, each: float) -> float:
    """How many times as long a sample takes in a whole map, on average over the uniform ones, `each`
    being its time in the model as it is.
    """
    uniform = [r.assignment for r in runs if not r.layer and len(set(r.assignment.values())) == 1]
    took = 0.0
    for assignment in uniform:
        simulator.run(assignment, take(inputs, 0, 8))
        start = time.thread_time()
        simulator.run(assignment, inputs)
        took += time.thread_time() - start
    return took / len(uniform) / count(inputs) / each if uniform else 1.0


def _single_cost(runner: Runner, inputs: Inputs, each: float) -> float:
    """How many times as long a sample takes that is run by itself, `each` being its time in a batch."""
    few = take(inputs, 0, SINGLES)
    runner.simulator.run({}, take(few, 0, 1))
    start = time.thread_time()
    runner.simulator.run({}, few, 1)
    return (time.thread_time() - start) / count(few) / each


def _reducing_seconds(reader: OutputReader, outputs: Floats) -> float:
    """Estimated time to take together what is not kept of one sample's outputs."""
    if not reader.entries:
        return 0.0
    entries = reader.likeliest(outputs, None)
    start = time.thread_time()
    reader.reduce(outputs, entries)
    return (time.thread_time() - start) / len(outputs)


def _local_samples(
    runner: Runner, source: ModelSource, layers: LayerTable, precisions: tuple[Precision, ...],
    looks: Mapping[str, float],
) -> float:  # fmt: skip
    """Samples that go through the whole model, or a part of it, while layers are looked at by
    themselves. Before the looks at a batch one pass tells the reference; where a layer's modules run
    alone another tells what they are given, and a look at the first batch shows that they give the same bits. Which
    layers clip is not known before: the look at what that costs them (`REMEDY_SAMPLES`, and twice as
    many for each) is left out.
    """
    alone = int(has_gradients(source) and not runner.replayer.refusal)
    most = min(len(source.calibration), MOST_SAMPLES)
    back = _pulled_back(source)
    first = count(next(batches(few(source), layers, 3 + DRAWS)))
    integer = any(p.is_calibrated for p in precisions)
    half = any(p.float_dtype == "float16" for p in precisions)
    total = float(back * (1 + alone))
    if integer:
        total += len(source.calibration) + min(len(source.selection), MOST_SAMPLES)
        total += (1 + alone) * REMEDY_SAMPLES
    ranges = {site[0] for site in runner.simulator.ranges}
    for layer in layers:
        if not layer.computes_at_inference:
            continue
        variants = _variants(layer, layer.name in ranges) + half if integer else 0
        samples = back * len(precisions) + alone * first
        samples += min(most, REMEDY_SAMPLES) * variants
        total += samples * _look(layer, looks)
    return total


def _variants(layer: Layer, has_ranges: bool) -> int:
    """Ways of rounding that a layer is tried in."""
    weighted = any(spec.on_grid for spec in layer.tensors)
    return 1 + has_ranges + 3 * (weighted and has_ranges)


def _gradient_seconds(source: ModelSource, layers: LayerTable) -> float:
    """Estimated time of the gradients of all samples that layers are looked at with."""
    batch = take(source.calibration.inputs, 0, BACKWARD_TIMED)
    stored = source.model.state_dict(keep_vars=True)
    parameters = {
        spec.name: tensor
        for layer in layers
        for spec in layer.tensors
        if isinstance(tensor := stored.get(spec.name), nn.Parameter) and tensor.is_floating_point()
    }
    start = time.thread_time()
    try:
        pull_back(source.model, seen_at(layers), parameters, batch, source.output, Tensor.contiguous,
                  None, 2, torch.Generator().manual_seed(0))  # fmt: skip
    except RuntimeError:
        return 0.0  # nor will the analysis have them
    took = time.thread_time() - start
    most = min(len(source.calibration), MOST_SAMPLES)
    return took * most / count(batch) * (1 + DRAWS) / 3  # a forward pass and two draws were timed
