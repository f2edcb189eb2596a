"""`analysis.json`: its fields, and reading it with every count checked before it is used."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from core.analysis.arrays import StoredWeights
from core.analysis.header import AnalysisHeader
from core.errors import AnalysisError
from core.evidence.evidence import Outputs, Partial
from core.layers import ROLES, LayerTable

SCHEMA_VERSION = 1
FILE = "analysis.json"
MAX_JSON_BYTES = 64 * 10**6
MAX_LAYERS = 100_000


@dataclass(frozen=True, eq=False, kw_only=True)
class FileVersion:
    """What every file says first, read before the rest of it is."""

    schema_version: int


class _PartialAlone(msgspec.Struct, frozen=True):
    partial: Partial | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class AnalysisFile(AnalysisHeader, FileVersion):
    """`analysis.json`: the version, the header's fields, and what describes the arrays beside it.

    Unknown fields are ignored, so that an older tool reads a newer patch.
    """

    measured_precisions: tuple[str, ...] | None
    weights: tuple[StoredWeights, ...] = ()
    outputs: Outputs = field(default_factory=Outputs)


def partial_of(folder: Path) -> Partial | None:
    """How far the measurement of an analysis was, without reading the rest; None for a whole one,
    and where there is none that can be read.
    """
    path = folder / FILE
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            return None
        return msgspec.json.decode(path.read_bytes(), type=_PartialAlone).partial
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def decode(path: Path) -> AnalysisFile:
    """The content of `path`; raises `AnalysisError` where it is none that this program reads."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise AnalysisError(
            f"{path} is larger than {MAX_JSON_BYTES // 10**6} MB.", "This is no analysis of ours."
        )
    raw = path.read_bytes()
    try:
        version = msgspec.json.decode(raw, type=FileVersion).schema_version
        if version != SCHEMA_VERSION:
            newer = version > SCHEMA_VERSION
            raise AnalysisError(
                f"{path} has schema version {version}; this program reads {SCHEMA_VERSION}.",
                "Update Quantscape." if newer else "Analyze the model again.",
            )
        data = msgspec.json.decode(raw, type=AnalysisFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AnalysisError(
            f"{path} cannot be read: {error}.", "Restore the file, or analyze the model again."
        ) from error
    _check_layers(data.layers, path)
    return data


def _check_layers(layers: LayerTable, path: Path) -> None:
    def refuse(what: str) -> AnalysisError:
        return AnalysisError(f"{path}: {what}.", "Restore the file, or analyze the model again.")

    if len(layers) > MAX_LAYERS:
        raise refuse(f"{len(layers):,} layers, more than {MAX_LAYERS:,}")
    if len(layers.index) != len(layers):
        raise refuse("a layer name occurs twice")
    for layer in layers:
        if layer.role not in ROLES:
            raise refuse(f"layer {layer.name!r} has the unknown role {layer.role!r}")
        if min(layer.params, layer.macs, layer.input_elements, layer.output_elements) < 0:
            raise refuse(f"layer {layer.name!r} has a negative count")
    nodes = len(layers) + layers.joins
    if not 0 <= layers.joins <= MAX_LAYERS:
        raise refuse(f"{layers.joins:,} joins")
    for edge in layers.edges:
        if not (0 <= edge.source < nodes and 0 <= edge.target < nodes):
            raise refuse(f"an edge leads to layer {max(edge.source, edge.target)}")
