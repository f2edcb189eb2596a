"""Samples as ONNX files, exported once per run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from core.onnx_graph.node_table import Graph
from tests.interop import sample

Exported = tuple[Path, Path, Graph]


@pytest.fixture(scope="session")
def onnx_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """A sample as ONNX, its calibration data as .npz, and its nodes laid over its layers."""
    made: dict[str, Exported] = {}

    def get(name: str) -> Exported:
        if name not in made:
            made[name] = sample.exported(name, tmp_path_factory.mktemp(name))
        return made[name]

    return get
