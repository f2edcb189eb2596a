"""What the tests that lie beside each tool are given: samples as ONNX files, exported once per run."""

from __future__ import annotations

import pytest

from tests.interop import sample


@pytest.fixture(scope="session")
def onnx_of(tmp_path_factory: pytest.TempPathFactory) -> sample.OnnxOf:
    """A sample as ONNX, its calibration data as .npz, and its nodes laid over its layers."""
    made: dict[str, sample.Exported] = {}

    def get(name: str) -> sample.Exported:
        if name not in made:
            made[name] = sample.exported(name, tmp_path_factory.mktemp(name))
        return made[name]

    return get
