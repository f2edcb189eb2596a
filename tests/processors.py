"""Both kinds of x86 processor, for tests that have to hold on either."""

from __future__ import annotations

import platform

import pytest

from core.analysis.analysis import Analysis
from core.numerics.saturation import WARNING, X86

VNNI = {"architecture": "x86_64", "avx2": True, "avx512_vnni": True}
NO_VNNI = {"architecture": "x86_64", "avx2": True}
"""What PyTorch says of them."""

needs_x86 = pytest.mark.skipif(
    platform.machine().lower() not in (*X86, "amd64"),
    reason="needs x86: elsewhere ONNX Runtime has one kernel for signed and unsigned weights",
)


def own_notes(analysis: Analysis) -> tuple[str, ...]:
    """What an analysis notes of its model: all but what it notes of the processor at hand."""
    return tuple(note for note in analysis.notes if note != WARNING)
