"""AMD Quark quantizes exactly the nodes of INT8 layers when it runs our script."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from core.numerics.groups import grouped
from tests.interop import sample

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quark writes a table of what it did into the folder at hand."""
    monkeypatch.chdir(tmp_path)


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


@pytest.mark.parametrize(
    "turns", [("INT8", "INT4-g32"), ("FP32", "INT4-g128", "INT4-g32", "INT4-g32")], ids=str
)
def test_weights_by_groups_have_the_measured_bits(
    turns: tuple[str, ...], tmp_path: Path, onnx_of: sample.OnnxOf
) -> None:
    """Codes and scales that Quark wrote equal, bit for bit, those that the evidence has, in exactly
    the MatMuls of such layers (it takes no Gemm, which the export says); ONNX Runtime runs the file.
    """
    sample.needs("quark.onnx", "quark")
    import onnx
    import onnxruntime
    from onnx import numpy_helper

    path, data, graph = onnx_of("digits_vit")
    study, chosen = sample.in_turns("digits_vit", "quark", graph, turns)
    out = tmp_path / "out.onnx"
    script = sample.script_of(study, chosen, "quark", tmp_path, graph)
    script.quantize(str(path), str(data), str(out))

    before, after = onnx.load(path), onnx.load(out)
    held = {c.name: numpy_helper.to_array(c) for c in before.graph.initializer}
    kept = {c.name: numpy_helper.to_array(c) for c in after.graph.initializer}
    expected = sample.packed_products(before, chosen, graph, ("MatMul",))
    found = {n.name.removesuffix("_Q4"): n for n in after.graph.node if n.op_type == "MatMulNBits"}
    assert {p.name for _, p in expected.values()} == set(turns) & set(sample.FORMATS)
    assert found.keys() == expected.keys()
    for name, (node, precision) in expected.items():
        bits = grouped(torch.from_numpy(held[node.input[1]].T.copy()), precision.weights)
        assert np.array_equal(kept[found[name].input[1]], bits.packed().numpy())
        assert np.array_equal(kept[found[name].input[2]], bits.scales.numpy().ravel())
    integer = sample.dequantized_products(after)
    assert bool(integer) == ("INT8" in chosen.assigned)
    assert {chosen.by_layer[graph.owner_of[n]] for n in integer} <= {"INT8"}
    x = sample.inputs_of("digits_vit", 8).numpy()
    outputs = [
        onnxruntime.InferenceSession(str(p), providers=["CPUExecutionProvider"]).run(None, {"x": x})
        for p in (path, out)
    ]
    error = np.abs(outputs[0][0] - outputs[1][0]).max()
    assert 0 < error < 0.3 * np.abs(outputs[0][0]).max()
