"""From a source to an analysis: inventory, calibration, measurement, holdout baseline."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

import core
from core.analysis.analysis import Analysis
from core.engines.torch.simulate.folding import stored_tensors
from core.evidence.diagnose.local_measure import local_steps, with_local
from core.evidence.diagnose.weight_profile import weight_profiles
from core.evidence.evidence import Evidence, Identity, Partial, SplitSizes
from core.evidence.measure import measure as measuring
from core.evidence.measure.cache import Cache
from core.evidence.measure.collect import Progress
from core.evidence.measure.engine import prepare
from core.evidence.measure.forecast import forecast_seconds
from core.evidence.measure.holdout import judged
from core.evidence.measure.model_notes import notes
from core.evidence.measure.outputs import read
from core.layers import LayerTable
from core.numerics import precision as registry
from core.numerics.calibrate.calibration import Calibration
from core.numerics.calibrate.calibrators import MIN_MAX, Calibrator
from core.numerics.precision import Precision
from core.numerics.saturation import warning
from core.numerics.scheme import ORT_CPU, Scheme
from core.numerics.states import under, with_sites
from core.source.batches import take
from core.source.contract import ModelSource
from core.source.device import device_name
from core.source.inventory import take_inventory

ON_DEVICE = (
    "The runs were made on {device}: figures of accuracy differ from those of a CPU by the order "
    "of summation, and say nothing of how fast the model is there."
)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a measurement will cost.

    `batch` samples are run at a time, so that about `peak_bytes` of memory are taken at most.
    `full_passes` says why layers will not be measured by replay ("" = they will).
    """

    layers: int
    runs: int
    samples: int
    predicted_seconds: float
    perturbation_bytes: int
    peak_bytes: int
    batch: int
    full_passes: str


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


def registered() -> tuple[Precision, ...]:
    """Every registered precision but the reference."""
    return tuple(registry.get(name) for name in registry.simulated())


def dry_run(
    source: ModelSource,
    *,
    scheme: Scheme = ORT_CPU,
    calibrator: Calibrator = MIN_MAX,
    precisions: tuple[Precision, ...] | None = None,
    expand_units: bool = False,
    memory_bytes: int | None = None,
    jobs: int = 1,
) -> Forecast:
    """Predict the cost of `analyze` from one small batch; measures nothing else."""
    precisions = precisions or registered()
    layers = under(take_inventory(source, expand_units=expand_units), scheme)
    runs = measuring.planned_runs(layers, precisions)
    simulator = measuring.make_simulator(
        source, layers, scheme, expand_units=expand_units, calibrator=calibrator
    )
    reader = read(source)
    reader.targets(source.selection)  # what does not fit is said before the hours of measuring
    outputs = reader.keep(simulator.run({}, take(source.selection.inputs, 0, 2))).shape[1]
    engine = prepare(simulator, source, reader, precisions, len(runs), memory_bytes, jobs)
    values = len(precisions) * len(layers) * len(source.selection) * outputs
    return Forecast(
        layers=len(layers),
        runs=len(runs),
        samples=len(source.selection),
        predicted_seconds=forecast_seconds(engine, source, layers, precisions, runs, jobs),
        perturbation_bytes=values * np.dtype(np.float32).itemsize,
        peak_bytes=engine.peak_bytes,
        batch=engine.batch,
        full_passes=engine.reason,
    )


def analyze(
    source: ModelSource,
    *,
    scheme: Scheme = ORT_CPU,
    calibrator: Calibrator = MIN_MAX,
    precisions: tuple[Precision, ...] | None = None,
    expand_units: bool = False,
    probes: int = measuring.PROBES,
    memory_bytes: int | None = None,
    cache: Cache | None = None,
    jobs: int = 1,
    progress: Progress = lambda done, total, label: None,
    on_partial: Callable[[Analysis], None] | None = None,
) -> Analysis:
    """Measure `source` in `precisions` (all that are registered, by default) and return the
    analysis. Does not change the model's weights.

    `memory_bytes` bounds the memory taken (half of what is free if None). What `cache` holds of
    the same measurement is not measured again, and what is measured is kept there. `jobs`
    processes share the work, with the same bits. `on_partial` is given a partial analysis now and
    then: what is measured so far.
    """
    start = time.perf_counter()
    precisions = precisions or registered()
    layers = under(take_inventory(source, expand_units=expand_units), scheme)
    bare = replace(_bare(source, layers, scheme, expand_units), calibrator=calibrator.text)

    def look(evidence: Evidence, ranges: tuple[Calibration, ...], partial: Partial) -> None:
        if on_partial is not None:
            on_partial(replace(
                bare, evidence=evidence, ranges=ranges, partial=partial,
                layers=with_sites(layers, ranges),
                splits=replace(bare.splits, selection=partial.samples),
                seconds=round(time.perf_counter() - start, 1),
            ))  # fmt: skip

    steps = Steps(progress, local_steps(layers))
    measured = measuring.measure(
        source, layers, scheme, precisions,
        expand_units=expand_units, calibrator=calibrator, probes=probes, memory_bytes=memory_bytes,
        cache=cache, jobs=jobs, progress=steps.run, on_partial=look if on_partial is not None else None,
    )  # fmt: skip
    evidence = with_local(
        source, layers, scheme, measured, expand_units=expand_units, progress=steps.layer
    )
    steps.over()
    return replace(
        bare,
        layers=with_sites(layers, measured.ranges),
        evidence=evidence,
        ranges=measured.ranges,
        seconds=round(measured.seconds, 1),
        notes=(
            *notes(source, measured.evidence),
            *measured.notes,
            *warning(scheme),
            *_on_device(source),
        ),
    )


def _on_device(source: ModelSource) -> tuple[str, ...]:
    """What to know of figures that were not measured on the CPU."""
    device = device_name(source.model)
    return () if device == "cpu" else (ON_DEVICE.format(device=device),)


def _bare(source: ModelSource, layers: LayerTable, scheme: Scheme, expand_units: bool) -> Analysis:
    return Analysis(
        identity=Identity(source.name, source.fingerprint(), source.data_fingerprint()),
        title=source.title,
        description=source.description,
        task=source.task,
        class_names=source.class_names,
        layers=layers,
        scheme=scheme.name,
        scheme_facts=scheme,
        splits=SplitSizes(
            len(source.calibration),
            len(source.selection),
            0 if source.holdout is None else len(source.holdout),
        ),
        ranges=(),
        weights=weight_profiles(layers, stored_tensors(layers, source.model)),
        expanded_units=expand_units,
        data_description=source.data_description,
        source=source.reference,
        tool_version=core.__version__,
        device=device_name(source.model),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=None,
        notes=(),
        optimistic=source.optimistic,
        **judged(source, layers, scheme),
    )
