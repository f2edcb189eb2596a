"""NNCF rounds exactly the operations of INT8 layers when it runs our script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.numerics.groups import grouped
from tests.interop import sample

pytestmark = pytest.mark.filterwarnings("ignore")

MOVES = ("Reshape", "Transpose", "Convert", "Squeeze", "Unsqueeze", "Multiply", "Subtract")
FEW = ("i4", "u4", "u2")
TURNS = (("FP32", "INT4-g32", "INT8", "INT4-g32"), ("FP16", "INT4-g32"),
         ("INT8", "INT4-g32", "INT4-g32", "INT2-g32"))  # fmt: skip
"""What layers with products are given by turns: none of attention in INT8, whose products OpenVINO
makes one operation of."""
PRODUCTS = ("Convolution", "GroupConvolution", "MatMul")


def rounded(operation: Any, place: int) -> bool:
    """Whether an operand is rounded: a FakeQuantize, or a weight kept in 8 bits."""
    node = operation.input(place).get_source_output().get_node()
    while node.get_type_name() in MOVES:
        node = node.input(0).get_source_output().get_node()
    if node.get_type_name() == "Constant":
        return bool(node.get_element_type().get_type_name() in {"i8", "u8"})
    return bool(node.get_type_name() == "FakeQuantize")


@pytest.mark.parametrize("name", sample.SAMPLES)
def test_exactly_the_intended_layers_are_int8(
    name: str, tmp_path: Path, onnx_of: sample.OnnxOf
) -> None:
    """Both operands of a product are rounded if it belongs to an INT8 layer, and none else's."""
    sample.needs("nncf", "nncf")
    sample.needs("openvino", "nncf")
    path, data, graph = onnx_of(name)
    study = sample.study_of(name)
    chosen = sample.mixed(study, "nncf", graph)
    script = sample.imported(sample.written(name, "nncf", tmp_path, graph))
    model = script.quantize(str(path), str(data), str(tmp_path / "out.xml"))

    wanted = sample.integer_layers(study, chosen)
    products = sample.products_by_layer(graph)
    expected = set().union(*(products[layer] for layer in wanted))
    got = {
        op.get_friendly_name().removesuffix("/WithoutBiases")
        for op in model.get_ops()
        if op.get_type_name() in PRODUCTS and rounded(op, 0) and rounded(op, 1)
    }
    either = {
        op.get_friendly_name().removesuffix("/WithoutBiases")
        for op in model.get_ops()
        if op.get_type_name() in PRODUCTS and (rounded(op, 0) or rounded(op, 1))
    }
    assert expected
    assert got == either == expected
    openvino = sample.needs("openvino", "nncf")
    x = sample.inputs_of(name, 8).numpy()
    core = openvino.Core()
    outputs = [
        next(iter(core.compile_model(str(p), "CPU")({"x": x}).values()))
        for p in (path, tmp_path / "out.xml")
    ]
    error = np.abs(outputs[0] - outputs[1]).max()
    assert 0 < error < 0.3 * np.abs(outputs[0]).max()


def kept_by_groups(operation: Any) -> tuple[str, Any, Any, Any] | None:
    """Type, shape, bytes and scales of a weight in 4 or 2 bits that a product reads; None if it has
    none.
    """
    node, scales = operation.input(1).get_source_output().get_node(), None
    while node.get_type_name() in MOVES:
        if node.get_type_name() == "Multiply":
            scales = node.input(1).get_source_output().get_node()
            while scales.get_type_name() != "Constant":
                scales = scales.input(0).get_source_output().get_node()
        node = node.input(0).get_source_output().get_node()
    if node.get_type_name() != "Constant" or node.get_element_type().get_type_name() not in FEW:
        return None
    assert scales is not None
    raw = np.asarray(node.get_data()).reshape(-1).view(np.uint8)
    return node.get_element_type().get_type_name(), tuple(node.shape), raw, scales.get_data()


@pytest.mark.parametrize("turns", TURNS, ids=str)
def test_weights_by_groups_have_the_measured_codes(
    turns: tuple[str, ...], tmp_path: Path, onnx_of: sample.OnnxOf
) -> None:
    """Codes that NNCF wrote equal, bit for bit, those that the evidence has, in exactly the products
    of such layers, and scales are its scales in FP16; OpenVINO runs the model.
    """
    sample.needs("nncf", "nncf")
    openvino = sample.needs("openvino", "nncf")
    import onnx
    from onnx import numpy_helper

    path, data, graph = onnx_of("digits_vit")
    study, chosen = sample.in_turns("digits_vit", "nncf", graph, turns)
    script = sample.script_of(study, chosen, "nncf", tmp_path, graph)
    out = tmp_path / "out.xml"
    model = script.quantize(str(path), str(data), str(out))

    before = onnx.load(path)
    held = {c.name: numpy_helper.to_array(c) for c in before.graph.initializer}
    expected = sample.packed_products(before, chosen, graph)
    products = {
        op.get_friendly_name().removesuffix("/WithoutBiases"): op
        for op in model.get_ops()
        if op.get_type_name() in PRODUCTS
    }
    found = {name: kept for name, op in products.items() if (kept := kept_by_groups(op))}
    assert {p.name for _, p in expected.values()} == set(turns) & set(sample.FORMATS)
    assert found.keys() == expected.keys()
    for name, (node, precision) in expected.items():
        rows = held[node.input[1]] if node.op_type == "Gemm" else held[node.input[1]].T
        bits = grouped(torch.from_numpy(np.array(rows)), precision.weights)
        kind, shape, raw, scales = found[name]
        assert shape[-1] == precision.weights.group
        assert kind == {4: "i4", 2: "u2"}[precision.bits]
        signed = 0x88 if kind == "i4" else 0  # code - 8 in two's complement
        assert np.array_equal(raw ^ signed, bits.packed().numpy().reshape(-1))
        assert np.array_equal(np.asarray(scales).ravel(), bits.scales.half().numpy().ravel())
    both = {name for name, op in products.items() if rounded(op, 0) and rounded(op, 1)}
    assert bool(both) == ("INT8" in chosen.assigned)
    assert {chosen.by_layer[graph.owner_of[name]] for name in both} <= {"INT8"}
    x = sample.inputs_of("digits_vit", 8).numpy()
    outputs = [
        next(iter(openvino.Core().compile_model(str(p), "CPU")({"x": x}).values()))
        for p in (path, out)
    ]
    error = np.abs(outputs[0] - outputs[1]).max()
    assert 0 < error < 0.5 * np.abs(outputs[0]).max()


def test_an_onnx_name_alone_would_not_be_enough(onnx_of: sample.OnnxOf) -> None:
    """The reason for the script: NNCF validates a node's name and quantizes its convolution."""
    nncf = sample.needs("nncf", "nncf")
    openvino = sample.needs("openvino", "nncf")
    path, data, graph = onnx_of("digits_resnet")
    conv = next(n.name for n in graph.nodes if n.op_type == "Conv")
    batches = [{"x": np.load(data)["x"]}]
    model = nncf.quantize(
        openvino.convert_model(str(path)),
        nncf.Dataset(batches),
        subset_size=1,
        ignored_scope=nncf.IgnoredScope(names=[conv], validate=True),
    )
    operation = next(
        op for op in model.get_ops() if op.get_friendly_name() == f"{conv}/WithoutBiases"
    )

    assert rounded(operation, 0)


def test_a_wrong_name_stops(tmp_path: Path, onnx_of: sample.OnnxOf) -> None:
    """Another model's file lacks the nodes."""
    sample.needs("nncf", "nncf")
    path, _, _ = onnx_of("digits_resnet")
    _, data, graph = onnx_of("digits_vit")
    script = sample.imported(sample.written("digits_vit", "nncf", tmp_path, graph))

    with pytest.raises(SystemExit, match="the OpenVINO model has no node_"):
        script.quantize(str(path), str(data), str(tmp_path / "out.xml"))
