"""A session file: the policy at hand, the pinned map and the named strategies of one model.

Precisions are stored layer by layer beside the policy that gave them, so that a strategy stays
what it was. Every entry carries the identity of its model and is checked like a precision map.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

import core
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.names import MAX_NAME, is_name
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.errors import MapError, QuantscapeError
from core.evidence.evidence import Identity
from core.export.map.precision_map import (
    MAX_BYTES,
    ORIGINS,
    StoredLayer,
    StoredMap,
    restored,
)
from core.files import FileKind

SCHEMA_VERSION = 1
MAX_STRATEGIES = 50
SESSIONS = FileKind(
    MapError, MAX_BYTES,
    "Use a file that the dashboard saved; a single map is opened as a map.",
    is_none="is no session file", version=SCHEMA_VERSION, older="Save the session again.",
)  # fmt: skip


class KeptStrategy(msgspec.Struct, frozen=True):
    """A named map of one model: its policy, and each layer's precision."""

    name: str
    model: Identity
    policy: Policy
    layers: tuple[StoredLayer, ...]


@dataclass(frozen=True, slots=True)
class Session:
    """What a person is doing with one model. `strategies` have names of their own."""

    model: Identity
    policy: Policy
    pinned: KeptStrategy | None = None
    strategies: tuple[KeptStrategy, ...] = ()


class _File(msgspec.Struct, frozen=True):
    schema_version: int
    tool: str
    tool_version: str
    model: Identity
    policy: Policy
    pinned: KeptStrategy | None
    strategies: tuple[KeptStrategy, ...]


def entry(study: Study, name: str, chosen: PrecisionMap) -> KeptStrategy:
    """`chosen` as an entry called `name`."""
    rows = tuple(
        StoredLayer(layer, precision, ORIGINS[origin])
        for layer, precision, origin in zip(
            study.layers.names, chosen.assigned, chosen.origin, strict=True
        )
    )
    return KeptStrategy(name, study.analysis.identity, chosen.policy, rows)


def restore(kept: KeptStrategy, study: Study, origin: str = "the session") -> PrecisionMap:
    """The map that `kept` holds; raises `MapError` naming the entry where it does not fit."""
    stored = StoredMap(kept.model, kept.policy, kept.layers)
    called = f"{kept.name!r} in {origin}"
    try:
        return restored(stored, study, called)
    except MapError:
        raise
    except QuantscapeError as error:
        raise MapError(f"{called}: {error.cause}", error.next_step) from error


def to_json(session: Session) -> bytes:
    """The file's bytes, indented; the same session gives the same bytes.

    Raises `MapError` for names that reading would refuse.
    """
    _check_names(session.strategies, "the session")
    content = _File(
        SCHEMA_VERSION, "quantscape", core.__version__, session.model, session.policy,
        session.pinned, session.strategies,
    )  # fmt: skip
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"


def from_json(raw: bytes, study: Study, origin: str = "the session") -> Session:
    """Read a session back for `study`; raises `MapError` naming the entry that does not fit.

    Every entry is turned into its map once, so that what is returned can be restored.
    """
    data = _decode(raw, origin)
    _check_names(data.strategies, origin)
    _check_policy(data, study, origin)
    for kept in (*((data.pinned,) if data.pinned else ()), *data.strategies):
        restore(kept, study, origin)
    return Session(data.model, data.policy, data.pinned, data.strategies)


def read(path: Path, study: Study) -> Session:
    """`from_json` of a file; raises `MapError` if it cannot be read."""
    return from_json(SESSIONS.read(path), study, str(path))


def _decode(raw: bytes, origin: str) -> _File:
    try:
        return SESSIONS.decode(raw, _File, origin)
    except MapError:
        raise
    except QuantscapeError as error:  # a policy checks itself while it is decoded
        raise MapError(f"{origin} holds a bad policy: {error.cause}", error.next_step) from error


def _check_names(strategies: tuple[KeptStrategy, ...], origin: str) -> None:
    if len(strategies) > MAX_STRATEGIES:
        raise MapError(
            f"{origin} holds {len(strategies)} strategies, more than {MAX_STRATEGIES}.",
            "Delete some.",
        )
    seen: set[str] = set()
    for kept in strategies:
        name = kept.name
        if not is_name(name):
            raise MapError(
                f"{origin} names a strategy {name[:MAX_NAME]!r}.",
                f"Names have 1 to {MAX_NAME} characters on one line.",
            )
        if name in seen:
            raise MapError(f"{origin} names two strategies {name!r}.", "Rename one of them.")
        seen.add(name)


def _check_policy(data: _File, study: Study, origin: str) -> None:
    """The policy at hand has to be of this model, and something that it can decide."""
    blank = tuple(
        StoredLayer(layer.name, study.precisions[0] if layer.computes_at_inference else None)
        for layer in study.layers
    )
    restore(KeptStrategy("the policy", data.model, data.policy, blank), study, origin)
