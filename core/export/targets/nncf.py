"""OpenVINO through NNCF: a script with an `IgnoredScope` that is validated."""

from __future__ import annotations

from core.export.targets.contract import ExportRequest
from core.export.targets.script import python


def render(job: ExportRequest) -> str:
    """A Python script that quantizes the chosen nodes and ignores every other operation."""
    return python(
        job, "nncf", {"INT8_NODES": job.integers, "COMPRESS_TO_FP16": job.common == "FP16"}
    )
