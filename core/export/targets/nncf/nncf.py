"""OpenVINO through NNCF: a script with an `IgnoredScope` that is validated."""

from __future__ import annotations

from typing import Any

from core.export.targets.contract import ExportRequest
from core.export.targets.script import python


def render(request: ExportRequest) -> str:
    """A Python script that quantizes the chosen nodes, or their weights by groups, and ignores every
    other operation.
    """
    return python(
        request,
        __name__,
        {
            "INT8_NODES": request.integers,
            "PACKED": _packed(request),
            "COMPRESS_TO_FP16": request.common == "FP16",
        },
    )


def _packed(request: ExportRequest) -> list[dict[str, Any]]:
    """One entry for each mode and size of a group, as `compress_weights` takes them."""
    found: dict[tuple[int, int], list[str]] = {}
    for name, kept in request.grouped.items():
        found.setdefault((kept.bits, kept.group), []).append(name)
    return [
        {"mode": f"INT{bits}_SYM", "group_size": group, "nodes": nodes}
        for (bits, group), nodes in found.items()
    ]
