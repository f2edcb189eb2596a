"""ONNX Runtime builds and runs what our script says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from core.numerics.groups import grouped
from core.numerics.saturation import saturates
from tests.interop import sample

TURNS = (
    ("FP16", "INT8", "INT4-g32"),
    ("INT4-g128", "FP32", "INT8-W"),
    ("INT8", "INT4-g32", "INT8-W", "FP16"),
    ("FP16", "INT2-g32"),
)
"""What layers with products are given by turns."""

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", sample.SAMPLES)
@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt-qdq"])
@pytest.mark.slow
def test_exactly_the_intended_layers_are_int8(
    target: str, name: str, tmp_path: Path, onnx_of: sample.OnnxOf
) -> None:
    """Products with integer operands are those of INT8 layers, FP16 weights those of FP16 layers,
    and the model runs close to the float one.
    """
    sample.needs("onnxruntime.quantization", "onnxruntime")
    sample.needs("onnx", "onnxruntime")
    import onnx

    path, data, graph = onnx_of(name)
    study = sample.study_of(name)
    chosen = sample.mixed(study, target, graph)
    out = tmp_path / "out.onnx"
    script = sample.imported(sample.written(name, target, tmp_path, graph))
    script.build(str(path), str(data), str(out))

    model = onnx.load(out)
    wanted = sample.integer_layers(study, chosen)
    products = sample.products_by_layer(graph)
    expected = set().union(*(products[layer] for layer in wanted))
    assert expected
    assert sample.dequantized_products(model) == expected
    held = {t.name: t.data_type for t in model.graph.initializer}
    half = {
        graph.owner_of[n.name]
        for n in model.graph.node
        if n.name in graph.owner_of
        and any(held.get(t) == onnx.TensorProto.FLOAT16 for t in n.input)
    }
    assert {n for n in half if chosen.by_layer.get(n) != "FP16"} <= {""}
    floats = {n for n, p in chosen.by_layer.items() if p == "FP16" and n in products}
    assert floats <= half
    if target == "tensorrt-qdq":
        _symmetric_and_signed(model)

    x = sample.inputs_of(name).numpy()
    outputs = [script.session(str(p), saturates()).run(None, {"x": x})[0] for p in (path, out)]
    error = np.abs(outputs[0] - outputs[1]).max()
    assert 0 < error < 0.2 * np.abs(outputs[0]).max()


def _symmetric_and_signed(model: object) -> None:
    """Every zero point is int8 and 0, as TensorRT's explicit quantization asks."""
    import onnx
    from onnx import numpy_helper

    graph = model.graph  # type: ignore[attr-defined]
    held = {t.name: t for t in graph.initializer}
    points = {n.input[2] for n in graph.node if n.op_type in {"QuantizeLinear", "DequantizeLinear"}}
    assert points
    for point in points:
        assert held[point].data_type == onnx.TensorProto.INT8
        assert not numpy_helper.to_array(held[point]).any()


@pytest.mark.parametrize("name", sample.SAMPLES)
@pytest.mark.slow
def test_integer_kernels_are_executed(name: str, tmp_path: Path, onnx_of: sample.OnnxOf) -> None:
    """ONNX Runtime's own graph holds an integer kernel for every INT8 product with a weight, and
    for no other.
    """
    sample.needs("onnxruntime.quantization", "onnxruntime")
    import onnx
    import onnxruntime

    path, data, graph = onnx_of(name)
    out, seen = tmp_path / "out.onnx", tmp_path / "seen.onnx"
    script = sample.imported(sample.written(name, "onnxruntime", tmp_path, graph))
    script.build(str(path), str(data), str(out))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(seen)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.disable_prepacking", "1")
    onnxruntime.InferenceSession(
        str(out), options, providers=["CPUExecutionProvider"],
        disabled_optimizers=script.LEFT_OUT,
    )  # fmt: skip
    kernels = [n.op_type for n in onnx.load(seen).graph.node]
    integer = sum(
        kernels.count(k)
        for k in (
            "QLinearConv",
            "QGemm",
            "MatMulIntegerToFloat",
            "QLinearMatMul",
            "DynamicQuantizeMatMul",
        )
    )
    study = sample.study_of(name)
    chosen = sample.mixed(study, "onnxruntime", graph)
    products = sample.products_by_layer(graph)
    expected = sum(len(products[layer]) for layer in sample.integer_layers(study, chosen))

    assert integer == expected


@pytest.mark.parametrize("turns", TURNS, ids=str)
@pytest.mark.slow
def test_weights_by_groups_have_the_measured_bits(
    turns: tuple[str, ...], tmp_path: Path, onnx_of: sample.OnnxOf
) -> None:
    """Codes and scales that ONNX Runtime's own quantizer wrote equal, bit for bit, those that the
    evidence has, in exactly the products of such layers, side by side with INT8 and FP16; ONNX
    Runtime runs the file, close to the float model.
    """
    sample.needs("onnxruntime.quantization", "onnxruntime")
    import onnx
    from onnx import numpy_helper

    path, data, graph = onnx_of("digits_vit")
    study, chosen = sample.in_turns("digits_vit", "onnxruntime", graph, turns)
    out = tmp_path / "out.onnx"
    script = sample.script_of(study, chosen, "onnxruntime", tmp_path, graph)
    script.build(str(path), str(data), str(out))

    before, after = onnx.load(path), onnx.load(out)
    held = {c.name: numpy_helper.to_array(c) for c in before.graph.initializer}
    kept = {c.name: numpy_helper.to_array(c) for c in after.graph.initializer}
    expected = sample.packed_products(before, chosen, graph)
    found = {n.name: n for n in after.graph.node if n.op_type == "MatMulNBits"}
    assert {p.name for _, p in expected.values()} == set(turns) & set(sample.FORMATS)
    assert found.keys() == expected.keys()
    for name, (node, precision) in expected.items():
        weight = held[node.input[1]]
        is_rows = any(a.name == "transB" and a.i for a in node.attribute)
        rows = torch.from_numpy(np.array(weight if is_rows else weight.T))
        bits = grouped(rows, precision.weights)
        assert np.array_equal(kept[found[name].input[1]], bits.packed().numpy())
        assert np.array_equal(kept[found[name].input[2]], bits.scales.numpy())
        said = {a.name: a.i for a in found[name].attribute}
        assert (said["bits"], said["block_size"]) == (precision.bits, precision.weights.group)
    integer = sample.dequantized_products(after)
    assert bool(integer) == ("INT8" in chosen.assigned)
    assert {chosen.by_layer[graph.owner_of[n]] for n in integer} <= {"INT8"}
    assert ("FP16" in turns) == any(
        c.data_type == onnx.TensorProto.FLOAT16 for c in after.graph.initializer
    )
    x = sample.inputs_of("digits_vit").numpy()
    outputs = [script.session(str(p), saturates()).run(None, {"x": x})[0] for p in (path, out)]
    error = np.abs(outputs[0] - outputs[1]).max()
    assert 0 < error < (0.5 if "INT2-g32" in turns else 0.2) * np.abs(outputs[0]).max()


def test_a_script_for_another_model_stops(tmp_path: Path, onnx_of: sample.OnnxOf) -> None:
    """The wrong model is named by the nodes that it lacks."""
    sample.needs("onnxruntime.quantization", "onnxruntime")
    path, _, _ = onnx_of("digits_resnet")
    _, data, graph = onnx_of("digits_vit")
    build: Callable[..., None] = sample.imported(
        sample.written("digits_vit", "onnxruntime", tmp_path, graph)
    ).build

    with pytest.raises(SystemExit, match=r"has no node_.* \(nearest: node_"):
        build(str(path), str(data), str(tmp_path / "out.onnx"))
