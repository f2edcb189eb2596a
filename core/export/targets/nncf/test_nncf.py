"""NNCF rounds exactly the operations of INT8 layers when it runs our script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.interop import sample

pytestmark = pytest.mark.filterwarnings("ignore")

MOVES = ("Reshape", "Transpose", "Convert", "Squeeze", "Unsqueeze", "Multiply", "Subtract")
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
