"""ONNX Runtime builds and runs what our script says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from core.numerics import precision as registry
from core.numerics.groups import grouped
from core.numerics.rounding import round_weight, scales_of
from core.numerics.saturation import saturates
from tests.interop import sample

TURNS = (
    ("FP16", "INT8", "INT4-g32"),
    ("INT4-g128", "FP32", "INT8-W"),
    ("INT8", "INT4-g32", "INT8-W", "FP16"),
    ("FP16", "INT2-g32"),
)
"""What layers with products are given by turns."""

AT_RUN = ("MatMulIntegerToFloat", "DynamicQuantizeMatMul")
"""Kernels of what sets ranges while it runs, the first of calibrated products too."""

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
    path, data, graph = onnx_of(name)
    out = tmp_path / "out.onnx"
    script = sample.imported(sample.written(name, "onnxruntime", tmp_path, graph))
    script.build(str(path), str(data), str(out))
    kernels = executed(script, out, tmp_path)
    integer = sum(map(kernels.count, ("QLinearConv", "QGemm", "QLinearMatMul", *AT_RUN)))
    study = sample.study_of(name)
    chosen = sample.mixed(study, "onnxruntime", graph)
    products = sample.products_by_layer(graph)
    expected = sum(len(products[layer]) for layer in sample.integer_layers(study, chosen))

    assert integer == expected


def executed(script: ModuleType, path: Path, folder: Path) -> list[str]:
    """Types of the nodes that ONNX Runtime executes of the file at `path`."""
    import onnx
    import onnxruntime

    seen = folder / "seen.onnx"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(seen)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.disable_prepacking", "1")
    onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"],
        disabled_optimizers=script.LEFT_OUT,
    )  # fmt: skip
    return [n.op_type for n in onnx.load(seen).graph.node]


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


@pytest.mark.parametrize(
    "turns",
    [("INT8-dynamic",), ("INT8-dynamic", "INT8", "FP16"), ("INT4-g32", "INT8-dynamic")],
    ids=str,
)
@pytest.mark.slow
def test_int8_dynamic_has_the_measured_bits(
    turns: tuple[str, ...], tmp_path: Path, onnx_of: sample.OnnxOf
) -> None:
    """Products with a matrix in exactly the layers in INT8-dynamic multiply integers, on the codes and
    scales of the analysis, which are those of ONNX Runtime's own `quantize_dynamic`; its kernels run as
    many, and one sample gives what that quantizer's file gives.
    """
    sample.needs("onnxruntime.quantization", "onnxruntime")
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path, data, graph = onnx_of("digits_vit")
    study, chosen = sample.in_turns("digits_vit", "onnxruntime", graph, turns)
    out, own = tmp_path / "out.onnx", tmp_path / "own.onnx"
    script = sample.script_of(study, chosen, "onnxruntime", tmp_path, graph)
    script.build(str(path), str(data), str(out))

    before, after = onnx.load(path), onnx.load(out)
    held = held_in(before)
    expected = {
        n.name: n for n in before.graph.node
        if n.op_type in ("Gemm", "MatMul") and n.input[1] in held
        and chosen.by_layer[graph.owner_of[n.name]] == "INT8-dynamic"
    }  # fmt: skip
    found = {n.name: n for n in after.graph.node if n.op_type == "MatMulInteger"}
    assert found.keys() == expected.keys()
    assert {n for names in script.DYNAMIC.values() for n in names} == expected.keys()
    renamed = {f"{n}_MatMul": n for n, node in expected.items() if node.op_type == "Gemm"}
    quantize_dynamic(
        path, own, per_channel=True, weight_type=QuantType.QInt8,
        nodes_to_quantize=[*expected, *renamed],
    )  # fmt: skip
    codes = held_in(after)
    theirs = {
        (name := n.name.removesuffix("_quant"), renamed.get(name, name))[1]: held_in(model)[n.input[1]]
        for model in [onnx.load(own)]
        for n in model.graph.node if n.op_type == "MatMulInteger"
    }  # fmt: skip
    assert theirs.keys() == expected.keys()
    kept = registry.get("INT8-dynamic")
    for name, node in expected.items():
        is_rows = any(a.name == "transB" and a.i for a in node.attribute)
        weight = torch.from_numpy(np.array(held[node.input[1]]))
        weight = weight if is_rows else weight.T
        integers = codes[found[name].input[1]]
        scale = codes[_scale_of(after, found[name])]
        assert np.array_equal(scale, scales_of(weight, kept.weights).numpy())
        assert np.array_equal((integers * scale).T, round_weight(weight, kept).numpy())
        assert np.array_equal(integers, theirs[name])
    kernels = executed(script, out, tmp_path)
    assert sum(map(kernels.count, AT_RUN)) >= len(expected)
    x = sample.inputs_of("digits_vit").numpy()[:1]
    if len(turns) == 1:  # but for the convolution in front, which has no such format
        script.__dict__["INT8_NODES"] = []
        script.build(str(path), str(data), str(out))
    outputs = [script.session(str(p), saturates()).run(None, {"x": x})[0] for p in (path, out, own)]
    error = np.abs(outputs[0] - outputs[1]).max()
    assert 0 < error < 0.2 * np.abs(outputs[0]).max()
    if len(turns) == 1:
        assert np.abs(outputs[1] - outputs[2]).max() < 1e-3 * error


def held_in(model: Any) -> dict[str, Any]:
    """Stored tensors by name."""
    from onnx import numpy_helper

    return {c.name: numpy_helper.to_array(c) for c in model.graph.initializer}


def _scale_of(model: Any, product: Any) -> str:
    """Name of the scales of the weight of a MatMulInteger: its sums are cast, and multiplied by the
    product of both scales.
    """
    made = {tensor: node for node in model.graph.node for tensor in node.output}
    reader = {tensor: node for node in model.graph.node for tensor in node.input}
    cast = reader[product.output[0]]
    return str(made[reader[cast.output[0]].input[1]].input[1])


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
