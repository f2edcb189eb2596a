"""What ONNX Runtime took on one machine, by layer and precision, kept in the analysis folder.

One JSON file per profile in `DIR/profiles/`, written whole or not at all. The latest of the
machine at hand is what latency is estimated from where there is one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from core.evidence.evidence import Identity
from core.files import Count, NonNegative
from core.numerics import precision as registry
from core.records import record_files
from core.records.verification import Machine

SCHEMA_VERSION = 1
FOLDER = "profiles"
MAX_FILES = 1_000
Spread = Annotated[float, msgspec.Meta(ge=0, le=100)]
"""Of logarithms: e^100 is no figure any more."""


class Conversion(msgspec.Struct, frozen=True):
    """The price of one converted tensor, in ms per sample: `fixed_ms + elements · per_element_ms`."""

    fixed_ms: NonNegative
    per_element_ms: NonNegative


class MachineProfile(msgspec.Struct, frozen=True):
    """Times in ms per sample at `batch` samples a call.

    `layer_ms` [P][L] by `precisions` and `layers`. `rest_ms` is what belongs to no layer: glue and
    the runtime's own work. `quantized` and `half` price a tensor that changes between float and
    integers, or between float32 and a half format. `spread` is the deviation of
    log(measured / estimated) over whole maps that were timed, each left out of the fit in turn.
    `way` says for each layer whether its times were read off the profiler or found as the
    difference of two runs.
    """

    schema_version: Count
    tool_version: str
    created: str
    identity: Identity
    scheme: str
    machine: Machine
    batch: Count
    precisions: tuple[str, ...]
    layers: tuple[str, ...]
    layer_ms: tuple[tuple[NonNegative, ...], ...]
    rest_ms: NonNegative
    quantized: Conversion
    half: Conversion
    spread: Spread
    noise_pct: float
    maps: Count
    way: tuple[str, ...]
    seconds: float


def save(folder: Path, profile: MachineProfile) -> Path:
    """Write `profile` under the analysis folder; raises `AnalysisError` where it cannot."""
    return record_files.write(folder / FOLDER, profile, verb="profile")


def latest(
    folder: Path, identity: Identity, scheme: str, layers: tuple[str, ...]
) -> tuple[MachineProfile | None, tuple[str, ...]]:
    """The newest profile of this model under this scheme, None where there is none; and a sentence
    for each file that cannot be read.
    """
    found, left_out = record_files.read(
        folder / FOLDER, MachineProfile, identity, scheme, schema=SCHEMA_VERSION, most=MAX_FILES
    )
    fitting = [
        one
        for one in found
        if one.layers == layers
        and registry.REFERENCE in one.precisions
        and len(one.layer_ms) == len(one.precisions)
        and all(len(row) == len(layers) for row in one.layer_ms)
    ]
    return (fitting[-1] if fitting else None), left_out
