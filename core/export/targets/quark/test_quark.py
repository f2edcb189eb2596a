"""AMD Quark quantizes exactly the nodes of INT8 layers when it runs our script."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop import sample

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", sample.SAMPLES)
def test_exactly_the_intended_layers_are_int8(
    name: str, tmp_path: Path, onnx_of: sample.OnnxOf
) -> None:
    """Products whose operands Quark rounds are those of INT8 layers."""
    sample.needs("quark.onnx", "quark")
    import onnx

    path, data, graph = onnx_of(name)
    study = sample.study_of(name)
    chosen = sample.mixed(study, "quark", graph)
    out = tmp_path / "out.onnx"
    script = sample.imported(sample.written(name, "quark", tmp_path, graph))
    script.quantize(str(path), str(data), str(out))

    products = sample.products_by_layer(graph)
    expected = set().union(*(products[n] for n in sample.integer_layers(study, chosen)))
    assert expected
    assert sample.dequantized_products(onnx.load(out)) == expected
