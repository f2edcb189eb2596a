"""Verifying a map: build it, run it on held-back data, time it, and hold it against its simulation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import prod
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort

import core
from core.analysis.analysis import Analysis
from core.decide import answer
from core.decide.assess.loss import VALUES
from core.decide.assess.outcome import accuracy_totals
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.engines.engine import Engine, Floats
from core.errors import DataError, ModelError
from core.estimate.values import ValueProjector
from core.evidence.measure.keeper import Keeper, keep
from core.evidence.measure.outputs import OutputReader, read
from core.numerics import precision as registry
from core.numerics.scheme import check_built
from core.onnx_graph.layered_graph import LayeredGraph
from core.onnx_graph.session import as_deployed, exact_sums, open_session
from core.quantity import Quantity
from core.records.verification import (
    SCHEMA_VERSION,
    AsDeployed,
    LayerRun,
    Timing,
    Verification,
)
from core.runtime import one_way
from core.runtime.build import Built, assemble, check_kernels, check_same_model
from core.runtime.graph import graph_of
from core.runtime.inference import BATCH, run_batches
from core.runtime.judge import judge, sqnr_db
from core.runtime.machine import this_machine
from core.runtime.overhead import Overhead, measure_overhead
from core.runtime.peak import peak_bytes
from core.runtime.simulation import stored_simulator
from core.runtime.timing import ROUNDS, batch_for, interleaved, repeated
from core.source.contract import ModelSource
from core.source.data import Split

Progress = Callable[[int, int, str], None]
STEPS = ("building", "running the simulation", "running the model", "timing", "measuring memory")
THREADS = 1
LEAST_EXPORT_DB = 50.0
"""Order of summation alone leaves more than 90 dB."""


@dataclass(frozen=True, eq=False)
class Bench:
    """What the verifications of one analysis share: the exported graph, the reference and what is
    kept of its outputs, and the simulator with the stored ranges.
    """

    source: ModelSource
    analysis: Analysis
    study: Study
    graph: LayeredGraph
    simulator: Engine
    keeper: Keeper
    selection_keeper: Keeper
    split: Split
    split_name: str
    reference: Built
    reference_session: ort.InferenceSession
    outputs: Floats
    selection_outputs: Floats
    overhead: Overhead


def prepare(source: ModelSource, analysis: Analysis) -> Bench:
    """Export the model and run the reference once. Does not change the model.

    Raises `ModelError` where the model is another one or cannot be exported, `DataError` where the
    data are others, `PolicyError` where the analysis is under a scheme that no file is built for.
    """
    check_built(analysis.rounding)
    check_same_model(source, analysis)
    if source.data_fingerprint() != analysis.identity.data_sha256:
        raise DataError(
            f"The data of {analysis.source or source.name} are not those that were analyzed.",
            "Give the --csv that was analyzed, or analyze the model with these data.",
        )
    study = Study(analysis)
    graph = graph_of(source, analysis.layers, expand_units=analysis.expanded_units)
    simulator = stored_simulator(source, analysis)
    split, name = (source.selection, "selection")
    if source.holdout is not None:
        split, name = source.holdout, "holdout"
    reference = assemble(graph, analysis, _uniform(study, registry.REFERENCE))
    session = open_session(reference.model)
    reader, everything = read(source), source.metric is not None

    def kept(of: Split) -> tuple[Keeper, Floats]:
        found = run_batches(session, reference, of.inputs)
        return keep(reader, of, _of_shape(reader, found), everything=everything)

    (keeper, outputs), (selection_keeper, selection_outputs) = kept(split), kept(source.selection)
    _check_export(
        source, replace(keeper, reader=reader.plain),
        keeper.hold_all(simulator.run_batches({}, split.inputs, BATCH)), outputs,
    )  # fmt: skip
    return Bench(
        source, analysis, study, graph, simulator, keeper, selection_keeper, split, name, reference,
        session, outputs, selection_outputs, measure_overhead(graph, analysis),
    )  # fmt: skip


def _of_shape(reader: OutputReader, batches: Iterable[Floats]) -> Iterator[Floats]:
    """`batches`; raises `ModelError` where they have other outputs than the person's model."""
    expected = prod(reader.shape)
    for found in batches:
        if found.shape[1] != expected:
            raise ModelError(
                f"The exported model gives {found.shape[1]:,} outputs a sample, PyTorch "
                f"{expected:,}.",
                "Export it by hand and compare.",
            )
        yield found


def _check_export(source: ModelSource, keeper: Keeper, expected: Floats, outputs: Floats) -> None:
    """Raise `ModelError` where the exported model is another function than the person's."""
    apart = sqnr_db(keeper, expected, expected, outputs)
    if apart is not None and apart < LEAST_EXPORT_DB:
        cause = one_way.cause(source, source.selection.inputs)
        which = f": the model {one_way.CAUSES[cause]}" if cause else ""
        raise ModelError(
            f"The exported model gives other outputs than PyTorch ({apart:.0f} dB of signal over "
            f"difference){which}.",
            one_way.NEXT.get(cause, "Export it by hand and compare."),
        )


def verify(
    bench: Bench, chosen: PrecisionMap, *, label: str = "", rounds: int = ROUNDS,
    plain: bool = False,
    progress: Progress = lambda done, total, label: None,
) -> Verification:  # fmt: skip
    """Build `chosen`, run it on the holdout split and time it against FP32.

    `rounds` are those of the timing; with `plain` it is run once more as a program does that keeps
    no sums exact, where that differs. Raises `ModelError` where its outputs are not finite,
    `PolicyError` for a precision that is simulated alone.
    """
    check_kernels(chosen)
    start = time.perf_counter()

    def step(number: int) -> None:
        progress(number, len(STEPS), STEPS[number])

    step(0)
    built = assemble(bench.graph, bench.analysis, chosen)
    session = open_session(built.model, built.disabled)
    step(1)
    simulated = simulation(bench, built)
    step(2)
    many = at_once(bench, built)
    outputs = _kept(session, built, bench.keeper, bench.split, many)
    found = judge(
        bench.source, bench.keeper, bench.split, bench.analysis.metric, bench.outputs, outputs
    )
    same = judge(
        bench.source, bench.selection_keeper, bench.source.selection, bench.analysis.metric,
        bench.selection_outputs,
        _kept(session, built, bench.selection_keeper, bench.source.selection, many),
    )  # fmt: skip
    apart = judge(
        bench.source, bench.keeper, bench.split, bench.analysis.metric, simulated, outputs
    )
    step(3)
    timing = _time(bench, built, session, rounds)
    step(4)
    peaks = [_peak(bench, one, timing.batch) for one in (built, bench.reference)]
    agreement, error, simulated_error = (
        sqnr_db(bench.keeper, bench.outputs, *pair)
        for pair in ((outputs, simulated), (outputs, bench.outputs), (simulated, bench.outputs))
    )
    return Verification(
        schema_version=SCHEMA_VERSION,
        tool_version=core.__version__,
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        label=label,
        identity=bench.analysis.identity,
        scheme=bench.analysis.scheme,
        quantizer=bench.analysis.quantizer,
        machine=this_machine(THREADS),
        layers=tuple(msgspec.convert(msgspec.to_builtins(row), LayerRun) for row in built.report),
        figures=_measured_totals(bench.study, found.figures),
        same_samples=_measured_totals(bench.study, same.figures),
        split=bench.split_name,
        samples=len(bench.split),
        agreement_db=agreement,
        error_db=error,
        simulated_error_db=simulated_error,
        disagreements=apart.flips,
        timing=timing,
        file_bytes=built.file_bytes,
        tensor_bytes=built.tensor_bytes,
        reference_file_bytes=bench.reference.file_bytes,
        predicted_file_bytes=bench.overhead.file_bytes(chosen),
        peak_bytes=peaks[0],
        reference_peak_bytes=peaks[1],
        left_out=built.disabled,
        overflow=_overflowing(bench.study, chosen),
        as_deployed=_as_deployed(bench, built, simulated) if plain and exact_sums() else None,
        seconds=round(time.perf_counter() - start, 2),
    )


def _as_deployed(bench: Bench, built: Built, simulated: Floats) -> AsDeployed:
    """What a session without exact sums gives, NaN and infinity taken for 0."""
    with as_deployed():
        session = open_session(built.model, built.disabled)
        outputs = bench.keeper.hold_all(
            np.nan_to_num(values, posinf=0, neginf=0)
            for values in run_batches(session, built, bench.split.inputs, at_once(bench, built))
        )
    found = judge(
        bench.source, bench.keeper, bench.split, bench.analysis.metric, bench.outputs, outputs
    )
    return AsDeployed(
        _measured_totals(bench.study, found.figures),
        sqnr_db(bench.keeper, bench.outputs, outputs, simulated),
    )


def at_once(bench: Bench, built: Built) -> int:
    """How many samples a run takes: one where a kernel sets ranges over what it is given, as evidence
    has them, unless the model mixes samples.
    """
    inputs = bench.source.selection.inputs
    return 1 if built.sets_ranges and bench.simulator.samples_apart(inputs) else BATCH


def _kept(
    session: ort.InferenceSession, built: Built, keeper: Keeper, split: Split, many: int
) -> Floats:
    """What is kept of the outputs [N, K] of a session on `split`, `many` samples a run; raises
    `ModelError` where any of them are not finite.
    """

    def finite() -> Iterator[Floats]:
        for values in run_batches(session, built, split.inputs, many):
            if not np.isfinite(values).all():
                raise ModelError(
                    "The built model gave NaN or infinity on the split that it is judged by.",
                    "Look at the layers that overflow in their precision, and widen them.",
                )
            yield values

    return keeper.hold_all(finite())


def simulation(bench: Bench, built: Built) -> Floats:
    """What is kept of the outputs [N, K] of the simulation of what runs, on the split that `bench`
    judges by.
    """
    precision = bench.analysis.precision
    assignment = {row.name: precision(row.got) for row in built.report if row.got is not None}
    return bench.keeper.hold_all(bench.simulator.run_batches(assignment, bench.split.inputs, BATCH))


def _uniform(study: Study, name: str) -> PrecisionMap:
    return answer.decide(study, Policy(strategy="uniform", uniform=name))


def _measured_totals(study: Study, figures: Any) -> dict[str, Quantity]:
    """What is known; a loss in percent only where that of the analysis is one too."""
    found = {name: q for name, q in accuracy_totals(study, figures).items() if q.value is not None}
    if isinstance(study.projector, ValueProjector) and not study.projector.has_percent:
        found.pop(VALUES.loss, None)
    return found


def _time(bench: Bench, built: Built, session: ort.InferenceSession, rounds: int) -> Timing:
    inputs = bench.split.inputs
    batch = batch_for(bench.reference_session, bench.reference.inputs, inputs)
    given = repeated(built.inputs, inputs, batch)
    found = interleaved(
        {"map": session, "reference": bench.reference_session}, given, batch, rounds
    )
    ratio, low, high = found.ratio("map", "reference")
    times = {
        name: Quantity(found.median(name), "ms", "measured", *found.spread(name))
        for name in ("map", "reference")
    }
    return Timing(
        map_ms=times["map"],
        reference_ms=times["reference"],
        ratio=Quantity(ratio, "x", "measured", low, high),
        batch=batch,
        rounds=rounds,
        noise_pct=round(found.noise_pct("reference"), 2),
    )


def _peak(bench: Bench, built: Built, batch: int) -> int | None:
    return peak_bytes(
        built.model, repeated(built.inputs, bench.split.inputs, batch), built.disabled
    )


def _overflowing(study: Study, chosen: PrecisionMap) -> tuple[str, ...]:
    """Layers whose outputs were not finite in simulation. A clean run proves nothing of FP16 that
    runs in FP32.
    """
    projector = study.projector
    if projector is None:
        return ()
    return tuple(study.layers.names[i] for i in projector.forbidden(chosen.codes))
