"""What a measurement depends on, as one key: equal keys mean equal bits."""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import asdict
from functools import cache
from typing import Any

from core.engines.engine import Assignment, Engine
from core.evidence.measure.outputs import FLOOR
from core.layers import LayerTable
from core.numerics.precision import TensorFormat
from core.source.batches import Output
from core.source.contract import ModelSource
from core.source.device import device_name

EVIDENCE_VERSION = 5
"""To be raised with every change of this package that may change a bit of a run's outputs."""


def content_key(
    source: ModelSource,
    layers: LayerTable,
    simulator: Engine,
    reference: str,
    *,
    everything: bool,
    entries: int = 0,
) -> str:
    """SHA-256 of all that the outputs of a run depend on beside its assignment and batch.

    `reference` is that of the model's own outputs, which stand for code that cannot be read and
    differ if another division into batches does; `everything` says whether all outputs are kept,
    `entries` how many classes of an answer are where only some are.
    """
    digest = hashlib.sha256()
    of_layers = [
        (x.name, x.role, x.state, x.quantizes_output, repr(x.fused), x.dynamic) for x in layers
    ]
    ranges = [(*site, seen.low, seen.high) for site, seen in sorted(simulator.ranges.items())]
    parts = {
        "version": EVIDENCE_VERSION,
        "device": device_name(source.model),
        "weights": source.fingerprint(),
        "data": source.data_fingerprint(),
        "task": (source.task, source.metric_name, _text(source.output), everything),
        "scheme": asdict(simulator.scheme),
        "calibrator": asdict(simulator.calibrator),
        "layers": of_layers,
        "ranges": ranges,
        "reference": reference,
        **({"entries": entries, "floor": FLOOR} if entries else {}),
        "engine": simulator.identity(),
    }
    digest.update(json.dumps(parts, sort_keys=True, default=repr).encode())
    return digest.hexdigest()


def run_key(assignment: Assignment) -> str:
    """What identifies a run: the precision of each layer that leaves the reference."""
    chosen = [(x, _form(p.weights), p.activations and _form(p.activations))
              for x, p in sorted(assignment.items())]  # fmt: skip
    return hashlib.sha256(json.dumps(chosen).encode()).hexdigest()


@cache
def _form(kept: TensorFormat) -> dict[str, Any]:
    return asdict(kept)


def _text(output: Output) -> str | int | None:
    """What tells one 'output' from another: of a function its source, where it can be read."""
    if not callable(output):
        return output
    try:
        return inspect.getsource(output)
    except (OSError, TypeError):  # the reference outputs stand for it
        return ""


def is_repeatable(simulator: Engine, batch: object) -> bool:
    """Whether the model gives the same outputs for a batch when it is run again."""
    first, again = (simulator.run({}, batch) for _ in range(2))  # type: ignore[arg-type]
    return first.tobytes() == again.tobytes()
