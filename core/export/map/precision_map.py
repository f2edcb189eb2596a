"""`precision_map.json`: a map that can be kept, sent, checked and read back.

It carries the identity of the model it was made for; a map for another model is refused with
the difference named. Figures never appear without their kind.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import core
from core.decide import answer
from core.decide.assess.outcome import Outcome, outcome
from core.decide.assess.statistics import Statistics, statistics
from core.decide.policy.decision import BY_OVERRIDE, BY_PIN, NO_PRECISION, PrecisionMap
from core.decide.policy.policy import Policy
from core.decide.policy.scoring import LEVELS
from core.decide.study import Study
from core.errors import MapError
from core.evidence.evidence import Identity, Partial
from core.files import FileKind
from core.quantity import Quantity

SCHEMA_VERSION = 1
MAX_BYTES = 64 * 10**6
MAPS = FileKind(
    MapError, MAX_BYTES, "Use a file that `plan` or the dashboard wrote.",
    is_none="is no precision map", version=SCHEMA_VERSION, older="Export the map again.",
)  # fmt: skip
MAX_NAMED = 5


class MapLayer(msgspec.Struct, frozen=True):
    """One layer of a map. `precision` is null for a layer that does nothing at inference;
    `document_precision` is what the reference document would write. `set_by` says what decided:
    strategy, pin, override, that it was not measured yet, or that there is no kernel.
    """

    name: str
    role: str
    params: int
    macs: int
    score: float
    level: str
    precision: str | None
    document_precision: str
    set_by: str
    size_bytes: int
    latency_ms: float
    state: str
    reason: str


class MapFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole file. Totals are `{value, low, high, unit, kind}`. `partial` is there only for a
    map of an analysis that did not know all yet, `quantizer` where weights by groups were measured.
    """

    schema_version: int
    tool: str
    tool_version: str
    model: Identity
    scheme: str
    policy: Policy
    confidence: str
    layers: tuple[MapLayer, ...]
    statistics: Statistics
    totals: dict[str, Quantity]
    glue_bytes: int
    warnings: tuple[str, ...]
    partial: Partial | None = None
    quantizer: str = ""


ORIGINS = ("strategy", "pin", "override", "not measured", "no kernel")


def describe(study: Study, chosen: PrecisionMap, found: Outcome | None = None) -> MapFile:
    """The file's content for `chosen`, with its figures."""
    found = found or outcome(study, chosen)
    rows = tuple(
        MapLayer(
            name=layer.name,
            role=layer.role,
            params=layer.params,
            macs=layer.macs,
            score=float(chosen.scores[i]),
            level=LEVELS[chosen.levels[i]],
            precision=chosen.assigned[i],
            document_precision=chosen.document_precision(i),
            set_by=ORIGINS[chosen.origin[i]],
            size_bytes=int(found.layer_bytes[i]),
            latency_ms=float(found.layer_ms[i]),
            state=layer.state,
            reason=chosen.reason(i),
        )
        for i, layer in enumerate(study.layers)
    )
    return MapFile(
        schema_version=SCHEMA_VERSION,
        tool="quantscape",
        tool_version=core.__version__,
        model=study.analysis.identity,
        scheme=study.analysis.scheme,
        policy=chosen.policy,
        confidence=found.confidence,
        layers=rows,
        statistics=statistics(chosen),
        totals=found.totals,
        glue_bytes=found.glue_bytes,
        warnings=found.warnings,
        partial=study.analysis.partial,
        quantizer=study.analysis.by_groups,
    )


def to_builtins(study: Study, chosen: PrecisionMap) -> dict[str, Any]:
    """The file's content as plain dicts and lists."""
    content: dict[str, Any] = msgspec.to_builtins(describe(study, chosen))
    return content


def to_json(study: Study, chosen: PrecisionMap) -> bytes:
    """The file's bytes, indented; the same map gives the same bytes."""
    return msgspec.json.format(msgspec.json.encode(describe(study, chosen)), indent=2) + b"\n"


def from_json(raw: bytes, study: Study, origin: str = "the map") -> PrecisionMap:
    """Read a map back for `study`; raises `MapError` naming what does not fit.

    Precisions come from the file, scores and levels from its policy. A layer whose precision
    the policy would not give (a file edited by hand) is marked as an override.
    """
    return restored(MAPS.decode(raw, StoredMap, origin), study, origin)


def restored(data: StoredMap, study: Study, origin: str) -> PrecisionMap:
    """The map that `data` holds, as `from_json` says."""
    _check_identity(data, study, origin)
    given = {row.name: row for row in data.layers}
    _check_names(given, len(data.layers), study, origin)
    decided = answer.decide(study, data.policy)
    codes, sources = decided.codes.copy(), decided.origin.copy()
    for i, name in enumerate(study.layers.names):
        codes[i] = _code(given[name], i, study, origin)
        if codes[i] != decided.codes[i]:
            sources[i] = BY_OVERRIDE
        elif given[name].set_by == ORIGINS[BY_PIN]:
            sources[i] = BY_PIN
    return PrecisionMap(
        study.layers, study.precisions, codes.astype(np.int8), decided.scores, decided.levels,
        sources, data.policy, decided.ignored,
    )  # fmt: skip


def read(path: Path, study: Study) -> PrecisionMap:
    """`from_json` of a file; raises `MapError` if it cannot be read."""
    return from_json(MAPS.read(path), study, str(path))


class StoredLayer(msgspec.Struct, frozen=True):
    """A layer's precision (null where it does nothing at inference) and what decided it."""

    name: str
    precision: str | None
    set_by: str = ORIGINS[0]


class StoredMap(msgspec.Struct, frozen=True):
    """What reading needs of a map file; figures are recomputed, not believed."""

    model: Identity
    policy: Policy
    layers: tuple[StoredLayer, ...]


def _check_identity(data: StoredMap, study: Study, origin: str) -> None:
    ours, theirs = study.analysis.identity, data.model
    if theirs.name != ours.name:
        raise MapError(
            f"{origin} belongs to model {theirs.name!r}, not to {ours.name!r}.",
            "Open the analysis that the map was made for.",
        )
    if theirs.weights_sha256 != ours.weights_sha256:
        raise MapError(
            f"{origin} was made for other weights of {ours.name!r} "
            f"({theirs.weights_sha256[:12]}, here {ours.weights_sha256[:12]}).",
            "Analyze the model that the map was made for, or plan a new map.",
        )


def _check_names(given: dict[str, StoredLayer], rows: int, study: Study, origin: str) -> None:
    if rows != len(given):
        raise MapError(f"{origin} names a layer twice.", "Give each layer one precision.")
    known = study.layers.index
    unknown = [name for name in given if name not in known]
    missing = [name for name in known if name not in given]
    problems = [
        f"{len(names)} {what}: {', '.join(names[:MAX_NAMED])}"
        + (" ..." if len(names) > MAX_NAMED else "")
        for what, names in (("unknown layers", unknown), ("missing layers", missing))
        if names
    ]
    if problems:
        raise MapError(
            f"{origin} does not fit the model: {'; '.join(problems)}.",
            "Layer names are module paths; `show` lists them.",
        )


def _code(row: StoredLayer, i: int, study: Study, origin: str) -> int:
    does_nothing = not bool(study.layers.computes[i])
    if row.precision is None:
        if not does_nothing:
            raise MapError(
                f"{origin} gives layer {row.name!r} no precision, but it computes.",
                f"Give it one of {', '.join(study.precisions)}.",
            )
        return NO_PRECISION
    if row.precision not in study.precisions:
        raise MapError(
            f"{origin} gives layer {row.name!r} the precision {row.precision!r}, of which this "
            "analysis knows nothing.",
            f"Use one of {', '.join(study.precisions)}.",
        )
    return NO_PRECISION if does_nothing else study.precisions.index(row.precision)
