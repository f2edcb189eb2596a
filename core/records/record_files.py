"""Where what was found by running a model is kept, and how: one JSON file per finding.

It lies in the analysis folder, but for bundled samples: a sample's folder belongs to the program
and may be read-only or under version control, so its records lie under the user's data directory,
beside the jobs.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from core import files
from core.errors import AnalysisError
from core.evidence.evidence import Identity
from core.files import FileKind
from core.records.user_folders import records_folder
from core.source.samples import ROOT

RECORDS = FileKind(AnalysisError, 16 * 10**6, "Delete the file, or restore it.")


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

    Raises `AnalysisError`, whose next step has the `verb` of what it is of, where it cannot be
    written.
    """
    content = msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"
    stamp = record.created.replace(":", "").replace("+0000", "Z")
    path = folder / f"{stamp}-{hashlib.sha256(content).hexdigest()[:8]}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.write(path, content)
    except OSError as error:
        raise AnalysisError(
            f"{path} cannot be written: {files.reason(error)}.",
            files.what_to_do(error, f"a copy of the analysis folder elsewhere, and {verb} that"),
        ) from error
    return path


def read(
    folder: Path, kind: type[Kind], identity: Identity, scheme: str, *, schema: int, most: int
) -> tuple[tuple[Kind, ...], tuple[str, ...]]:
    """The records of a model under a scheme, the oldest first, from the first `most` files of
    `folder`; and a sentence for each file that was left out because it cannot be read.
    """
    found, left_out = [], []
    for path in sorted(folder.glob("*.json"))[:most]:
        try:
            one = RECORDS.load(path, kind)
        except AnalysisError as error:
            left_out.append(error.cause)
            continue
        if (
            one.schema_version == schema
            and one.identity.weights_sha256 == identity.weights_sha256
            and (one.identity.name, one.scheme) == (identity.name, scheme)
        ):
            found.append(one)
    return tuple(found), tuple(left_out)
