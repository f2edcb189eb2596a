"""What each layer takes on this machine, read off ONNX Runtime's profiler, and what boundaries add.

Uniform maps and a few random ones are run under the profiler. A node's time goes to the layer
that it belongs to; Q, DQ, casts and changes of layout go to the boundary that caused them. The
prices of boundaries and the runtime's own work are fitted to whole runs without the profiler,
interleaved, because the profiler slows small kernels down.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from scipy.optimize import nnls

import core
from core import precision as registry
from core.decide.decision import PrecisionMap
from core.decide.policy import Policy
from core.estimate import hardware
from core.machine_profile import SCHEMA_VERSION, Conversion, MachineProfile
from core.runtime.build import BUILDABLE_FLOATS, Built, assemble
from core.runtime.kernels import executed_layers
from core.runtime.machine import this_machine
from core.runtime.session import executed, open_session, options
from core.runtime.timing import batch_for, interleaved, repeated
from core.runtime.verify import THREADS, Bench
from core.study import Study

MAPS, SEED = 10, 20221
RUNS, WARM_UP = 30, 5
CONVERSIONS = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "Cast", "ReorderInput", "ReorderOutput"}
)
"""Operators that a boundary causes; a Transpose that the exported graph does not have is one too."""
TOO_SHORT_MS = 1e-4
"""Below this the profiler's clock, which counts microseconds, tells nothing."""

Floats = NDArray[np.float64]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Profiled:
    """Times of one map in ms per sample: `layers` [L], `boundaries` and `rest` (glue)."""

    layers: Floats
    boundaries: float
    rest: float

    @property
    def total(self) -> float:
        """All nodes together."""
        return float(self.layers.sum()) + self.boundaries + self.rest


def profiled_maps(study: Study, precisions: Sequence[str], count: int = MAPS) -> list[PrecisionMap]:
    """Uniform maps, then `count` random ones whose share of the narrowest precision rises.

    Every third one has half precision in place of the reference in some layers.
    """
    rng = np.random.default_rng(SEED)
    names, narrow = study.layers.names, precisions[-1]
    half = [p for p in precisions[1:] if registry.get(p).kind == "float"]
    found = [_given(study, dict.fromkeys(names, p)) for p in precisions]
    for m in range(count):
        share = (m + 1) / (count + 1)
        rest = half if half and m % 3 == 2 else [precisions[0]]
        found.append(
            _given(study, {n: narrow if rng.random() < share else str(rng.choice([precisions[0], *rest]))
                           for n in names})
        )  # fmt: skip
    return found


def _is_built(name: str) -> bool:
    precision = registry.get(name)
    return precision.kind == "integer" or precision.float_dtype in BUILDABLE_FLOATS


def _given(study: Study, by_layer: Mapping[str, str]) -> PrecisionMap:
    overrides = tuple(by_layer.items())
    return study.decide(
        Policy(strategy="manual", high=registry.REFERENCE, overrides=overrides,
               hardware=hardware.THIS_MACHINE)
    )  # fmt: skip


def profile(
    bench: Bench, *, maps: int = MAPS, rounds: int = 12,
    progress: Progress = lambda done, total, label: None,
) -> MachineProfile:  # fmt: skip
    """Time the layers of an analysis on this machine. One thread."""
    start = time.perf_counter()
    study = bench.study
    precisions = tuple(p for p in study.precisions if _is_built(p))
    chosen = profiled_maps(study, precisions, maps)
    batch = batch_for(bench.reference_session, bench.reference.inputs, bench.split.inputs)
    given = repeated(bench.reference.inputs, bench.split.inputs, batch)
    seen, sessions = [], {}
    for number, one in enumerate(chosen):
        progress(number, len(chosen) + 1, f"map {number + 1}")
        built = assemble(bench.graph, bench.analysis, one)
        seen.append(profiled(built, study, given, batch))
        sessions[str(number)] = open_session(built.model, built.disabled)
    progress(len(chosen), len(chosen) + 1, "whole maps in turn")
    timed = interleaved(sessions, given, batch, rounds)
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
        batch=batch,
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
        seconds=round(time.perf_counter() - start, 1),
    )


def profiled(built: Built, study: Study, given: Mapping[str, NDArray[np.generic]], batch: int
             ) -> Profiled:  # fmt: skip
    """Run `built` under the profiler and charge its nodes."""
    graph = executed(built.model, built.disabled)
    own_nodes = {node.name for node in built.model.graph.node}
    nodes = (node.name for node in graph.graph.node)
    layer = dict(zip(nodes, executed_layers(graph, built.model), strict=True))
    index = study.layers.index
    layers = np.zeros(len(study.layers))
    boundaries = rest = 0.0
    for name, (operator, ms) in _node_times(built, given).items():
        added = operator == "Transpose" and name not in own_nodes
        if operator in CONVERSIONS or added:
            boundaries += ms / batch
        elif layer.get(name):
            layers[index[layer[name]]] += ms / batch
        else:
            rest += ms / batch
    return Profiled(layers, boundaries, rest)


def _node_times(
    built: Built, given: Mapping[str, NDArray[np.generic]]
) -> dict[str, tuple[str, float]]:
    """Node -> operator and ms of a call."""
    with tempfile.TemporaryDirectory() as folder:
        settings = options(THREADS)
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(folder) / "profile")
        session: ort.InferenceSession = open_session(built.model, built.disabled, settings=settings)
        for _ in range(WARM_UP + RUNS):
            session.run(None, dict(given))
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    times: dict[str, list[float]] = {}
    operator: dict[str, str] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
            continue
        node = name.removesuffix("_kernel_time")
        operator[node] = event["args"]["op_name"]
        times.setdefault(node, []).append(event["dur"] / 1e3)
    return {
        node: (operator[node], _per_call(durations, WARM_UP + RUNS))
        for node, durations in times.items()
    }


def _per_call(durations: Sequence[float], calls: int) -> float:
    """Mean of the faster half of the calls; nodes of one name in one call are added up."""
    per = max(len(durations) // calls, 1)
    usable = np.array(durations[: per * (len(durations) // per)]).reshape(-1, per).sum(axis=1)
    return float(np.sort(usable[WARM_UP:])[: RUNS // 2].mean())


def layer_times(
    study: Study, precisions: Sequence[str], chosen: Sequence[PrecisionMap],
    seen: Sequence[Profiled], totals: Floats,
) -> tuple[Floats, tuple[str, ...]]:  # fmt: skip
    """Times [P, L] of every layer in every precision, and how each layer's were found.

    The mean over the maps that have it in that precision. Where a layer that multiplies shows
    nothing under the profiler, because its nodes were renamed beyond recognition, its time is the
    difference between the means of the whole maps that have it in a precision and of the others.
    """
    count = len(study.layers)
    own = np.zeros((len(precisions), count))
    for p, name in enumerate(precisions):
        for i in range(count):
            found = [
                s.layers[i] for s, m in zip(seen, chosen, strict=True) if m.assigned[i] == name
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
        if name is not None and name != registry.REFERENCE and registry.get(name).kind == "float"
    ]
    return np.array([
        layers, 1.0, crossing.sum(), elements[crossing].sum(), len(half), sum(half),
    ])  # fmt: skip
