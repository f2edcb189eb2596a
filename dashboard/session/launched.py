"""What this dashboard may run: bundled samples, functions that were named at launch, ONNX files."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import JobError
from core.source import onnx_file, samples
from dashboard import SOURCES_VARIABLE
from dashboard.session import studies


@dataclass(frozen=True, slots=True)
class LaunchedSource:
    """A model that may be measured: its name on the command line, and for people."""

    reference: str
    title: str
    takes_csv: bool = False


def sources() -> dict[str, LaunchedSource]:
    """What may be run, by reference: named at launch first, then the bundled samples."""
    names = sorted(samples.names(), key=lambda name: name != studies.FIRST_SAMPLE)
    named = [
        LaunchedSource(str(reference), f"{Path(str(reference)).name} (named at launch)")
        for reference in _launch().get("sources", ())
    ]
    bundled = [
        LaunchedSource(
            f"{samples.PREFIX}{name}", f"{name} (bundled sample)", samples.get(name).takes_csv
        )
        for name in names
    ]
    return {source.reference: source for source in named + bundled}


def folder_for(reference: str) -> str:
    """The folder that was current at launch, for a source named there; empty for a sample."""
    return "" if reference.startswith(samples.PREFIX) else str(_launch().get("cwd", ""))


def allowed(reference: str) -> bool:
    """Whether this dashboard may run a source: it was named at launch, or is data."""
    return reference in sources() or onnx_file.is_reference(reference)


def check_allowed(reference: str) -> None:
    """Raise `JobError` where this dashboard may not run a source."""
    if not allowed(reference):
        raise JobError(
            f"{reference} was not named at launch.", f"Start `python -m dashboard {reference}`."
        )


def _launch() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(os.environ.get(SOURCES_VARIABLE) or "{}")
    return found
