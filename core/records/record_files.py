"""Where what was found by running a model is kept, and how: one JSON file per finding.

It lies in the analysis folder, but for bundled samples: a sample's folder belongs to the program
and may be read-only or under version control, so its records lie under the user's data directory,
beside the jobs.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from core.errors import AnalysisError
from core.evidence.evidence import Identity
from core.records.user_folders import records_folder
from core.source.samples import ROOT

MAX_BYTES = 16 * 10**6


class Record(Protocol):
    """What every finding says of itself."""

    @property
    def schema_version(self) -> int:
        """The version of the file's form."""

    @property
    def created(self) -> str:
        """When, in ISO 8601, UTC."""

    @property
    def identity(self) -> Identity:
        """The model and data that it is of."""

    @property
    def scheme(self) -> str:
        """The scheme of the analysis that it belongs to."""


Kind = TypeVar("Kind", bound=Record)


def home_of(folder: Path) -> Path:
    """The folder that holds `verifications/` and `profiles/` of the analysis in `folder`."""
    try:
        inside = folder.resolve().relative_to(ROOT)
    except ValueError:
        return folder
    return records_folder() / inside.parts[0]


def write(folder: Path, record: Record, *, verb: str) -> Path:
    """Write `record` to a file of its own in `folder`, whole or not at all; returns the file.

    Raises `AnalysisError`, whose next step begins with `verb`, where it cannot be written.
    """
    content = msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"
    stamp = record.created.replace(":", "").replace("+0000", "Z")
    path = folder / f"{stamp}-{hashlib.sha256(content).hexdigest()[:8]}.json"
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(content)
        fresh.replace(path)
    except OSError as error:
        raise AnalysisError(
            f"{path} cannot be written: {error.strerror}.",
            f"{verb} a copy of the analysis folder in a place that can be written.",
        ) from error
    return path


def read(
    folder: Path, kind: type[Kind], identity: Identity, scheme: str, *, schema: int, most: int
) -> Iterator[Kind]:
    """The records of a model under a scheme, the oldest first, from the first `most` files of
    `folder`. Those that are damaged or of another schema are left out.
    """
    for path in sorted(folder.glob("*.json"))[:most]:
        one = _decoded(path, kind)
        if (
            one is not None
            and one.schema_version == schema
            and one.identity.weights_sha256 == identity.weights_sha256
            and (one.identity.name, one.scheme) == (identity.name, scheme)
        ):
            yield one


def _decoded(path: Path, kind: type[Kind]) -> Kind | None:
    try:
        if path.stat().st_size > MAX_BYTES:
            return None
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError, RecursionError):
        return None
