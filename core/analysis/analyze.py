"""From a source to an analysis: inventory, calibration, measurement, holdout baseline."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

import core
from core.analysis.analysis import Analysis
from core.engines.engines import layers_of, stored_tensors
from core.evidence.diagnose.local_measure import local_steps, with_local
from core.evidence.diagnose.weight_profile import weight_profiles
from core.evidence.evidence import Evidence, Identity, Partial, SplitSizes
from core.evidence.measure import measure as measuring
from core.evidence.measure.cache import Cache
from core.evidence.measure.collect import Progress
from core.evidence.measure.forecast import duration_of
from core.evidence.measure.holdout import judged, unjudged
from core.evidence.measure.measure import Setup
from core.evidence.measure.memory import held_bytes, release
from core.evidence.measure.model_notes import flow_notes, notes
from core.evidence.measure.outputs import read
from core.evidence.options import MeasureOptions
from core.layers import LayerTable
from core.numerics.calibrate.calibration import Calibration
from core.numerics.quantizers import of_format
from core.numerics.saturation import warning
from core.numerics.states import with_sites
from core.source.contract import ModelSource
from core.source.device import device_name

ON_DEVICE = (
    "The runs were made on {device}: figures of accuracy differ from those of a CPU by the order "
    "of summation, and say nothing of how fast the model is there."
)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a measurement will cost.

    `batch` samples are run at a time, so that about `peak_bytes` of memory are taken at most, of
    which Python, the model and its data take `held_bytes` before anything is measured.
    `predicted_seconds` are those of an idle machine, with as many processes as were asked for; each
    precision adds `adds_seconds` to them, and after `first_look_seconds` a first look at every layer
    is there (None where all samples are measured at once). `full_passes` says why layers will
    not be measured by replay ("" = they will), `outputs` what is kept of those of a sample.
    """

    layers: int
    runs: int
    samples: int
    predicted_seconds: float
    first_look_seconds: float | None
    adds_seconds: Mapping[str, float]
    perturbation_bytes: int
    peak_bytes: int
    held_bytes: int
    batch: int
    full_passes: str
    outputs: str


@dataclass(slots=True)
class Steps:
    """One count of steps over an analysis: its runs, then `alone` looks at single layers."""

    progress: Progress
    alone: int
    runs: int = 0

    def run(self, done: int, total: int, label: str) -> None:
        """A run is about to be made."""
        self.runs = total
        self.progress(done, total + self.alone, label if done < total else "layers one by one")

    def layer(self, place: int, name: str) -> None:
        """A layer's own output is about to be looked at."""
        self.progress(self.runs + place, self.runs + self.alone, f"{name} by itself")

    def over(self) -> None:
        """Everything is measured."""
        self.progress(self.runs + self.alone, self.runs + self.alone, "done")


@dataclass(frozen=True, eq=False)
class Ready:
    """Everything that an analysis stands on before its first run, once for the forecast and for it.

    `held_bytes` were taken before it was made, which took `seconds` of the processor.
    """

    source: ModelSource
    options: MeasureOptions
    layers: LayerTable
    measurement: Setup
    held_bytes: int
    seconds: float


def ready(source: ModelSource, options: MeasureOptions | None = None) -> Ready:
    """Calibrate `source` and see how it can be run. Raises `PolicyError` if memory is too small."""
    options, held, start = options or MeasureOptions(), held_bytes(), time.thread_time()
    layers = layers_of(source, options.scheme, expand_units=options.expand_units)
    measurement = measuring.set_up(source, layers, options)
    return Ready(source, options, layers, measurement, held, time.thread_time() - start)


def dry_run(source: ModelSource, options: MeasureOptions | None = None) -> Forecast:
    """Predict the cost of `analyze` from one small batch; measures nothing else."""
    found = forecast(ready(source, options))
    release()
    return found


def forecast(given: Ready) -> Forecast:
    """Predict the cost of `analyze` from one small batch."""
    source, options, layers, held = given.source, given.options, given.layers, given.held_bytes
    runs, runner, reader = (
        given.measurement.runs,
        given.measurement.runner,
        given.measurement.reader,
    )
    took = duration_of(runner, source, layers, reader, runs, options)
    values = len(options.precisions) * len(layers) * len(source.selection) * reader.columns
    return Forecast(
        layers=len(layers),
        runs=sum(not run.idle for run in runs),
        samples=len(source.selection),
        predicted_seconds=took.seconds,
        first_look_seconds=None if took.first_look is None else given.seconds + took.first_look,
        adds_seconds=took.adds,
        perturbation_bytes=values * np.dtype(np.float32).itemsize,
        peak_bytes=held + runner.peak_bytes,
        held_bytes=held,
        batch=runner.batch,
        full_passes=runner.reason,
        outputs=reader.in_words(),
    )


def analyze(
    source: ModelSource,
    options: MeasureOptions | None = None,
    *,
    given: Ready | None = None,
    cache: Cache | None = None,
    progress: Progress = lambda done, total, label: None,
    on_partial: Callable[[Analysis], None] | None = None,
) -> Analysis:
    """Measure `source` as `options` say, by default all that is registered, and return the
    analysis. Does not change the model's weights. `given` is what `ready` made of both.

    What `cache` holds of the same measurement is not measured again, and what is measured is kept
    there. `on_partial` is given a partial analysis now and then: what is measured so far.
    """
    start = time.perf_counter()
    given = given or ready(source, options)
    options, layers = given.options, given.layers
    bare = _bare(source, layers, options)

    def look(evidence: Evidence, ranges: tuple[Calibration, ...], partial: Partial) -> None:
        if on_partial is not None:
            on_partial(replace(
                bare, evidence=evidence, ranges=ranges, partial=partial,
                layers=with_sites(layers, ranges),
                splits=replace(bare.splits, selection=partial.samples),
                seconds=round(time.perf_counter() - start, 1),
            ))  # fmt: skip

    on_look = look if on_partial is not None else None
    # Why layers err as they do, and how good the model is on held-back samples, takes longer.
    alone = options.until != "first look"
    steps = Steps(progress, local_steps(source, layers) if alone else 0)
    stands = given.measurement
    seen = measuring.first_look(
        source, layers, options, stands, cache=cache, progress=steps.run, on_partial=on_look
    )
    bare = replace(bare, **judged(source, layers, options.scheme))
    if seen is not None and not alone:
        measured = seen.measured
    else:
        measured = measuring.measure(
            source, layers, options, ready=stands, look=seen, cache=cache, progress=steps.run,
            on_partial=on_look,
        )  # fmt: skip
    stands.runner.simulator.hold_weights(0)
    release()
    evidence, partial = measured.evidence, measured.partial
    if alone:
        evidence = with_local(source, layers, options, measured, steps.layer, cache)
    steps.over()
    return replace(
        bare,
        layers=with_sites(layers, measured.ranges),
        evidence=evidence,
        ranges=measured.ranges,
        partial=partial,
        splits=replace(bare.splits, selection=evidence.samples),
        seconds=round(time.perf_counter() - start, 1),
        notes=(
            *bare.notes,
            *read(source).notes,
            *notes(source, measured.evidence),
            *measured.notes,
            *warning(options.scheme),
            *_of_grid(options),
            *_on_device(source),
        ),
    )


def _on_device(source: ModelSource) -> tuple[str, ...]:
    """What to know of figures that were not measured on the CPU."""
    device = device_name(source.model)
    return () if device == "cpu" else (ON_DEVICE.format(device=device),)


def _of_grid(options: MeasureOptions) -> tuple[str, ...]:
    """What to know of weights by groups, where some were measured on a grid that has a note."""
    placed = {of_format(p.weights).note for p in options.precisions if p.is_weights_only}
    return tuple(filter(None, placed))


def _bare(source: ModelSource, layers: LayerTable, options: MeasureOptions) -> Analysis:
    scheme = options.scheme
    return Analysis(
        identity=Identity(source.name, source.fingerprint(), source.data_fingerprint()),
        title=source.title,
        description=source.description,
        task=source.task,
        class_names=source.class_names,
        layers=layers,
        scheme=scheme.name,
        scheme_facts=scheme,
        calibrator=options.calibrator.text,
        quantizer=options.quantizer.name,
        splits=SplitSizes(
            len(source.calibration),
            len(source.selection),
            0 if source.holdout is None else len(source.holdout),
        ),
        ranges=(),
        weights=weight_profiles(layers, stored_tensors(layers, source.model)),
        expanded_units=options.expand_units,
        data_description=source.data_description,
        source=source.reference,
        tool_version=core.__version__,
        device=device_name(source.model),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=None,
        notes=(*source.notes, *flow_notes(layers)),
        optimistic=source.optimistic,
        **unjudged(source),
    )
