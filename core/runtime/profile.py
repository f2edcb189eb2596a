"""What each layer takes on this machine, read off ONNX Runtime's profiler, and what boundaries add.

Uniform maps and a few random ones are run under the profiler. A node's time goes to the layer
that it belongs to; Q, DQ, casts and changes of layout go to the boundary that caused them. The
prices of boundaries and the runtime's own work are fitted to whole runs without the profiler,
interleaved, because the profiler slows small kernels down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from scipy.optimize import nnls

import core
from core.decide import answer
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.estimate import hardware
from core.layers import Layer
from core.numerics import precision as registry
from core.numerics.states import state_in
from core.onnx_graph.session import Feed, open_session
from core.records.machine_profile import SCHEMA_VERSION, Conversion, MachineProfile
from core.runtime.build import BUILDABLE_FLOATS, assemble
from core.runtime.machine import this_machine
from core.runtime.profiler import Charger, Profiled, middle
from core.runtime.timing import Rounds, batch_for, interleaved, joined, repeated
from core.runtime.verify import THREADS, Bench

MAPS, SEED = 10, 20221
PASSES, ROUNDS = 3, 42
TOO_SHORT_MS = 1e-4
"""Below this the profiler's clock, which counts microseconds, tells nothing."""

Floats = NDArray[np.float64]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Probes:
    """Maps that are timed for a profile, built and opened; `given` are `batch` samples."""

    precisions: tuple[str, ...]
    maps: tuple[PrecisionMap, ...]
    chargers: tuple[Charger, ...]
    sessions: Mapping[str, ort.InferenceSession]
    given: Feed
    batch: int


def profiled_maps(study: Study, precisions: Sequence[str], count: int = MAPS) -> list[PrecisionMap]:
    """Uniform maps, then `count` random ones whose share of narrow layers rises.

    A narrow layer is in any of the precisions that round products and mean something for it. Every
    third map has half precision in place of the reference in some layers.
    """
    rng = np.random.default_rng(SEED)
    names = study.layers.names
    half = [p for p in precisions[1:] if registry.get(p).is_cast]
    narrow = {layer.name: _narrow(layer, precisions) for layer in study.layers}
    found = [_given(study, dict.fromkeys(names, p)) for p in precisions]
    for m in range(count):
        share = (m + 1) / (count + 1)
        rest = half if half and m % 3 == 2 else [precisions[0]]
        found.append(
            _given(study, {n: str(rng.choice(narrow[n] if rng.random() < share else [precisions[0], *rest]))
                           for n in names})
        )  # fmt: skip
    return found


def _narrow(layer: Layer, precisions: Sequence[str]) -> list[str]:
    found = [p for p in precisions if not registry.get(p).is_cast]
    return (
        [p for p in found if state_in(layer, registry.get(p)) != "float"]
        or found[:1]
        or [precisions[-1]]
    )


def _is_built(name: str) -> bool:
    precision = registry.get(name)
    integers = precision.is_calibrated or precision.is_dynamic or precision.is_weights_only
    return integers or precision.float_dtype in BUILDABLE_FLOATS


def _given(study: Study, by_layer: Mapping[str, str]) -> PrecisionMap:
    overrides = tuple(by_layer.items())
    return answer.decide(study,
        Policy(strategy="manual", high=registry.REFERENCE, overrides=overrides,
               hardware=hardware.THIS_MACHINE)
    )  # fmt: skip


def profile(
    bench: Bench, *, maps: int = MAPS, rounds: int = ROUNDS,
    progress: Progress = lambda done, total, label: None,
) -> MachineProfile:  # fmt: skip
    """Time the layers of an analysis on this machine. One thread."""
    start = time.perf_counter()
    probes = open_probes(bench, maps=maps, progress=progress)
    seen, timed = observe(probes, rounds, progress=progress)
    return conclude(bench, probes, seen, timed, time.perf_counter() - start)


def open_probes(
    bench: Bench, *, maps: int = MAPS, progress: Progress = lambda done, total, label: None
) -> Probes:
    """Build the maps that a profile times."""
    study = bench.study
    precisions = tuple(p for p in study.precisions if _is_built(p))
    chosen = profiled_maps(study, precisions, maps)
    batch = batch_for(bench.reference_session, bench.reference.inputs, bench.split.inputs)
    given = repeated(bench.reference.inputs, bench.split.inputs, batch)
    chargers, sessions = [], {}
    for number, one in enumerate(chosen):
        progress(number, len(chosen) + PASSES, f"map {number + 1}")
        built = assemble(bench.graph, bench.analysis, one)
        chargers.append(Charger(built, study.layers, threads=THREADS))
        sessions[str(number)] = open_session(built.model, built.disabled)
    return Probes(precisions, tuple(chosen), tuple(chargers), sessions, given, batch)


def observe(
    probes: Probes, rounds: int = ROUNDS, *,
    beside: Mapping[str, ort.InferenceSession] | None = None,
    progress: Progress = lambda done, total, label: None,
) -> tuple[list[Profiled], Rounds]:  # fmt: skip
    """What the profiler says of every map, and whole maps in turn with the sessions `beside`.

    Both are taken in several passes one after the other, so that a machine that changes its
    speed does so for all of them.
    """
    seen: list[list[Profiled]] = [[] for _ in probes.maps]
    parts = []
    together = {**probes.sessions, **(beside or {})}
    for done in range(PASSES):
        progress(len(probes.maps) + done, len(probes.maps) + PASSES, f"timing {done + 1}")
        for one, charger in zip(seen, probes.chargers, strict=True):
            one.append(charger.profiled(probes.given, probes.batch))
        parts.append(interleaved(together, probes.given, probes.batch, -(-rounds // PASSES)))
    return [middle(one) for one in seen], joined(parts)


def conclude(
    bench: Bench, probes: Probes, seen: Sequence[Profiled], timed: Rounds, seconds: float
) -> MachineProfile:
    """The profile from what was observed of its maps, which took `seconds`."""
    study, precisions, chosen = bench.study, probes.precisions, probes.maps
    totals = np.array([timed.median(str(number)) for number in range(len(chosen))])
    own, way = layer_times(study, precisions, chosen, seen, totals)
    fitted = fit(study, precisions, chosen, own, totals)
    return MachineProfile(
        schema_version=SCHEMA_VERSION,
        tool_version=core.__version__,
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        identity=bench.analysis.identity,
        scheme=bench.analysis.scheme,
        machine=this_machine(THREADS),
        batch=probes.batch,
        precisions=precisions,
        layers=study.layers.names,
        layer_ms=tuple(tuple(float(x) for x in row) for row in own * fitted.scale),
        rest_ms=fitted.rest_ms,
        quantized=fitted.quantized,
        half=fitted.half,
        spread=fitted.spread,
        noise_pct=round(timed.noise_pct("0"), 2),
        maps=len(chosen),
        way=way,
        seconds=round(seconds, 1),
    )


def layer_times(
    study: Study, precisions: Sequence[str], chosen: Sequence[PrecisionMap],
    seen: Sequence[Profiled], totals: Floats,
) -> tuple[Floats, tuple[str, ...]]:  # fmt: skip
    """Times [P, L] of every layer in every precision, and how each layer's were found.

    The mean over the maps that have it in that precision and in a kernel of its own. Where a
    layer that multiplies shows nothing under the profiler, because its nodes were renamed beyond
    recognition, its time is the difference between the means of the whole maps that have it in a
    precision and of the others.
    """
    count = len(study.layers)
    fused = [study.forms.changes(one.codes)[1] for one in chosen]
    own = np.zeros((len(precisions), count))
    for p, name in enumerate(precisions):
        for i in range(count):
            found = [
                s.layers[i]
                for s, m, inside in zip(seen, chosen, fused, strict=True)
                if m.assigned[i] == name and not inside[i]
            ]
            own[p, i] = float(np.mean(found)) if found else 0.0
    lost = [
        i for i, layer in enumerate(study.layers)
        if layer.macs and layer.state == "computes" and own[:, i].max() < TOO_SHORT_MS
    ]  # fmt: skip
    for i in lost:
        others = np.array([s.total for s in seen])
        for p, name in enumerate(precisions):
            rows = np.array([m.assigned[i] == name for m in chosen])
            if rows.any() and not rows.all():
                gap = (totals - others)[rows].mean() - (totals - others)[~rows].mean()
                own[p, i] = max(float(gap), 0.0)
    way = tuple("difference" if i in lost else "profiler" for i in range(count))
    return own, way


@dataclass(frozen=True, slots=True)
class Fitted:
    """Factor of the layers' times, the prices beside them, and how far whole maps lie off."""

    scale: float
    rest_ms: float
    quantized: Conversion
    half: Conversion
    spread: float


def fit(
    study: Study, precisions: Sequence[str], chosen: Sequence[PrecisionMap], own: Floats,
    totals: Floats,
) -> Fitted:  # fmt: skip
    """Prices of boundaries and of the rest from the times of whole maps, none below zero."""
    rows = np.stack([_features(study, precisions, one, own) for one in chosen])
    weights = 1 / totals
    prices = _solve(rows, totals, weights)
    errors = []
    for m in range(len(totals)):
        kept = np.arange(len(totals)) != m
        guess = float(rows[m] @ _solve(rows[kept], totals[kept], weights[kept]))
        errors.append(np.log(totals[m] / max(guess, 1e-12)))
    spread = float(np.sqrt(np.square(errors).mean()))
    scale, rest, fixed, per_element, half_fixed, half_per = (float(x) for x in prices)
    return Fitted(
        scale, rest, Conversion(fixed, per_element), Conversion(half_fixed, half_per), spread
    )


def _solve(rows: Floats, totals: Floats, weights: Floats) -> Floats:
    size = np.maximum(np.abs(rows).max(axis=0), 1e-30)
    found: Floats = nnls((rows / size) * weights[:, None], totals * weights)[0] / size
    return found


def _features(study: Study, precisions: Sequence[str], one: PrecisionMap, own: Floats) -> Floats:
    """What a map's time is a weighted sum of: layers, 1, conversions and their elements."""
    at = [precisions.index(name) if name is not None else -1 for name in one.assigned]
    crossing, silent = study.forms.changes(one.codes)
    layers = sum(own[p, i] for i, p in enumerate(at) if p >= 0 and not silent[i])
    elements = np.array([edge.elements for edge in study.layers.edges], dtype=np.float64)
    half = [
        layer.input_elements + layer.output_elements
        for layer, name in zip(study.layers, one.assigned, strict=True)
        if name is not None and name != registry.REFERENCE and registry.get(name).is_cast
    ]
    return np.array([
        layers, 1.0, crossing.sum(), elements[crossing].sum(), len(half), sum(half),
    ])  # fmt: skip
