"""`analysis.json`: its fields, and reading it with every count checked before it is used."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from core.analysis.arrays import AGAIN, StoredWeights
from core.analysis.header import AnalysisHeader
from core.errors import AnalysisError
from core.evidence.evidence import Outputs, Partial
from core.files import MOST, Count, FileKind
from core.layers import ROLES, LayerTable
from core.numerics import precision as registry
from core.numerics import quantizers
from core.task import TASKS

SCHEMA_VERSION = 1
FILE = "analysis.json"
MAX_LAYERS = 100_000
MOST_IN_ALL = 10**16
"""Of what is counted layer by layer: bits of so many values still fit into int64."""
ANALYSES = FileKind(
    AnalysisError, 64 * 10**6, AGAIN, version=SCHEMA_VERSION, older="Analyze the model again."
)


class _PartialAlone(msgspec.Struct, frozen=True):
    partial: Partial | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class AnalysisFile(AnalysisHeader):
    """`analysis.json`: the version, the header's fields, and what describes the arrays beside it.

    Unknown fields are ignored, so that an older tool reads a newer patch.
    """

    schema_version: Count
    measured_precisions: tuple[str, ...] | None
    weights: tuple[StoredWeights, ...] = ()
    outputs: Outputs = field(default_factory=Outputs)


def partial_of(folder: Path) -> Partial | None:
    """How far the measurement of an analysis was, without reading the rest; None for a whole one,
    and where there is none that can be read.
    """
    try:
        return ANALYSES.load(folder / FILE, _PartialAlone).partial
    except AnalysisError:
        return None


def decode(path: Path) -> AnalysisFile:
    """The content of `path`; raises `AnalysisError` where it is none that this program reads."""
    data = ANALYSES.load(path, AnalysisFile)
    for what in (*_wrong(data), *_wrong_layers(data.layers)):
        raise ANALYSES.refused(path, what)
    return data


def _wrong(data: AnalysisFile) -> Iterator[str]:
    """What no type can say of the fields beside the layers."""
    names = data.measured_precisions or ()
    known = registry.simulated()
    if len(set(names)) != len(names) or any(name not in known for name in names):
        yield f"measured_precisions is {list(names)}, which are not some of {', '.join(known)}"
    if data.quantizer not in quantizers.names():
        yield f"quantizer is {data.quantizer!r}, which is not one of {', '.join(quantizers.names())}"
    if data.task not in TASKS:
        yield f"task is {data.task!r}, which is not one of {', '.join(TASKS)}"


def _wrong_layers(layers: LayerTable) -> Iterator[str]:
    """What no type can say of the layers: counts that are too large together, and references."""
    if len(layers) > MAX_LAYERS:
        yield f"{len(layers):,} layers, more than {MAX_LAYERS:,}"
    if layers.joins > MAX_LAYERS:
        yield f"{layers.joins:,} joins, more than {MAX_LAYERS:,}"
    if len(layers.index) != len(layers):
        yield "a layer name occurs twice"
    for layer in layers:
        if layer.role not in ROLES:
            yield f"layer {layer.name!r} has the unknown role {layer.role!r}"
    for spec in (
        *layers.glue_tensors,
        *layers.unread_tensors,
        *(t for layer in layers for t in layer.tensors),
    ):
        size = math.prod(spec.shape)
        if size > MOST or spec.channels > max(size, 1):
            yield f"tensor {spec.name!r} has {size:,} elements in {spec.channels:,} channels"
        if max(spec.grids, spec.width) > MOST:
            yield f"tensor {spec.name!r} has {spec.grids:,} grids, {spec.width:,} bits a value"
        if spec.channels > 1 and spec.channel_axis >= len(spec.shape):
            yield f"tensor {spec.name!r} has no axis {spec.channel_axis}"
    for what in ("params", "macs", "input_elements", "output_elements", "activation_scales",
                 "product_scales"):  # fmt: skip
        if sum(getattr(layer, what) for layer in layers) > MOST_IN_ALL:
            yield f"{what} of all layers come to more than {MOST_IN_ALL:.0e}"
    for edge in layers.edges:
        if max(edge.source, edge.target) >= len(layers) + layers.joins:
            yield f"an edge leads to layer {max(edge.source, edge.target)}, which is not there"
    grouped = [i for group in layers.groups for i in group]
    if any(i >= len(layers) for i in grouped):
        yield "a group has a layer that is not there"
    if len(set(grouped)) != len(grouped):
        yield "a layer is in two groups, or in one twice"
