"""A person's ONNX file is data: read within bounds, and refused by operator and node."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from core import files
from core.errors import DataError, ModelError, PolicyError
from core.onnx_graph.prepare import prepared
from core.onnx_graph.read_model import from_bytes, read_model
from core.source import onnx_file
from core.source.onnx_model import OnnxModel
from tests.zoo.graphs import draw, graph, node


def _model(*nodes: onnx.NodeProto, **more: object) -> ModelProto:
    return graph(nodes, {"w": draw(4, 4)}, {"x": ["n", 4]}, **more)  # type: ignore[arg-type]


def _read(model: ModelProto) -> OnnxModel:
    return OnnxModel(from_bytes(model.SerializeToString(), "model.onnx"))


def _with_function() -> ModelProto:
    model = _model(helper.make_node("Own", ["x"], ["y"], "n1", domain="mine"))
    model.functions.append(
        helper.make_function("mine", "Own", ["a"], ["b"], [node("Relu", "a", "b")],
                             [helper.make_opsetid("", 17)])
    )  # fmt: skip
    return model


def _shared_half() -> ModelProto:
    model = _model(node("MatMul", "x w", "y", "n1"))
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(draw(4, 4).astype("f2"), "w"))
    return model


def _claims(*dims: int) -> ModelProto:
    model = _model(node("MatMul", "x w", "y", "n1"))
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(dims)
    return model


def _nan() -> ModelProto:
    return graph([node("MatMul", "x w", "y", "n1")], {"w": np.full((4, 4), np.nan, np.float32)},
                 {"x": ["n", 4]})  # fmt: skip


REFUSED: dict[str, tuple[Callable[[], ModelProto], str]] = {
    "quantized": (
        lambda: _model(node("ConvInteger", "x w", "y", "n1")),
        "quantized already: node 'n1' is a ConvInteger",
    ),
    "Q and DQ": (
        lambda: _model(node("DequantizeLinear", "x w", "y")),
        "quantized already: the node that gives 'y' is a DequantizeLinear",
    ),
    "custom": (
        lambda: _model(helper.make_node("Mine", ["x"], ["y"], "n1", domain="mine")),
        "custom operator: node 'n1' is a mine::Mine",
    ),
    "unknown": (
        lambda: _model(node("Frobnicate", "x", "y", "n1")),
        "unknown operator: node 'n1' is a Frobnicate, which opset 17 has not",
    ),
    "function": (_with_function, "has a function of its own, mine::Own"),
    "cycle": (
        lambda: _model(node("Add", "x b", "a", "n1"), node("Relu", "a", "b", "n2"),
                       node("Relu", "b", "y", "n3")),
        "node 'n1' reads 'b' before it is made",
    ),
    "nothing": (lambda: _model(node("Add", "x b", "y", "n1")), "reads 'b', which nothing makes"),
    "twice": (
        lambda: _model(node("Relu", "x", "y", "n1"), node("Relu", "x", "y", "n2")),
        "node 'n2' makes 'y' once more",
    ),
    "half": (_shared_half, "weight 'w' is float16, not float32"),
    "nan": (_nan, "weight 'w' holds NaN or infinity"),
    "claims much": (lambda: _claims(10**5, 10**10), "says that it holds 1,000,000,000,000,000 values"),
    "negative": (lambda: _claims(-1, 4), "tensor 'w' has a negative size"),
    "nested": (ModelProto, "no ONNX model"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_measured_is_refused_by_name(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each refusal names operator, node or tensor, and says what to do."""
    make, expected = REFUSED[case]
    if case == "nested":
        raw = b""
        for _ in range(
            1_000
        ):  # NodeProto.attribute, AttributeProto.g, GraphProto.node, each around
            raw = _field(1, _field(5, _field(6, raw)))
        data = _field(7, raw)
    else:
        data = make().SerializeToString()

    with pytest.raises(ModelError) as caught:
        OnnxModel(from_bytes(data, "model.onnx"))

    assert expected in caught.value.cause
    assert caught.value.next_step


def _field(number: int, content: bytes) -> bytes:
    """A protobuf field that holds `content`."""
    size, length = b"", len(content)
    while True:
        size += bytes([length & 127 | (128 if length > 127 else 0)])
        length >>= 7
        if not length:
            return bytes([number << 3 | 2]) + size + content


def test_a_million_nodes_are_refused() -> None:
    """A graph with more nodes than a table may have is not looked at further."""
    same = _field(1, _field(1, b"x") + _field(2, b"y") + _field(4, b"Relu"))
    opset = _field(8, bytes([2 << 3, 17]))

    with pytest.raises(ModelError, match="more than 200,000 nodes"):
        from_bytes(opset + _field(7, same * 10**6), "model.onnx")


def _external(folder: Path, place: str) -> Path:
    model = _model(node("MatMul", "x w", "y", "n1"))
    tensor = model.graph.initializer[0]
    raw = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": place, "offset": "0", "length": str(len(raw))}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    (folder / "data.bin").write_bytes(raw)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_data_beside_the_file_is_taken_in(tmp_path: Path) -> None:
    """External data in the file's own folder are read, and are part of its digest."""
    found = read_model(_external(tmp_path, "data.bin"))

    assert np.array_equal(onnx.numpy_helper.to_array(found.model.graph.initializer[0]), draw(4, 4))
    (tmp_path / "data.bin").write_bytes(bytes(64))
    assert read_model(tmp_path / "model.onnx").sha256 != found.sha256


@pytest.mark.parametrize("place", ["../data.bin", "/etc/passwd", "link", "missing", ""])
def test_data_outside_the_folder_is_refused(tmp_path: Path, place: str) -> None:
    """Neither a path upwards, an absolute one, nor a link leads out of the folder."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "data.bin").write_bytes(bytes(64))
    (inside / "link").symlink_to(tmp_path / "data.bin")

    with pytest.raises(ModelError) as caught:
        read_model(_external(inside, place))

    assert "'w'" in caught.value.cause


def test_an_older_opset_is_raised() -> None:
    """Clip with attributes, of opset 9, becomes Clip of opset 13 with its own name."""
    clip = helper.make_node("Clip", ["x"], ["c"], "clip", min=0.0, max=6.0)
    given = from_bytes(
        _model(clip, node("MatMul", "c w", "y", "n1"), opset=9).SerializeToString(), "m"
    )

    found = prepared(given).model

    assert found.opset_import[0].version == 13
    assert [n.name for n in found.graph.node] == ["clip", "n1"]
    assert len(found.graph.node[0].input) == 3


def test_arrays_are_data(tmp_path: Path) -> None:
    """Objects, headers that promise too much, text and bombs are no arrays; nothing is unpickled."""
    path = tmp_path / "a.npz"
    np.savez(path, x=np.array([{}], dtype=object))
    bad = [path.read_bytes(), b"text"]
    np.savez(path, x=np.zeros(3))
    with zipfile.ZipFile(path) as pack:
        raw = pack.read("x.npy").replace(b"(3,)", b"(9,)")
    with zipfile.ZipFile(path, "w") as pack:
        pack.writestr("x.npy", raw)
    bad.append(path.read_bytes())
    for content in bad:
        path.write_bytes(content)
        with pytest.raises(OSError, match="it holds no arrays that NumPy wrote"):
            files.arrays(path, 10**6)
    np.savez_compressed(path, x=np.zeros(10**6))
    with pytest.raises(OSError, match="larger than"):
        files.arrays(path, 10**6)


def test_a_reference_is_the_words_of_a_command_line(tmp_path: Path) -> None:
    """What is missing is named, and a file that is no source is told from one that is."""
    assert onnx_file.is_reference("a b.onnx") is False
    assert onnx_file.is_reference("'a b.onnx' --task regression")
    assert onnx_file.words("it's.py:load") == ["it's.py:load"]
    assert onnx_file.words("m.onnx --task regression") == ["m.onnx", "--task", "regression"]
    with pytest.raises(PolicyError, match="no --calibration is given"):
        onnx_file.load("m.onnx --task regression")
    with pytest.raises(DataError, match=r"c\.npz cannot be read"):
        onnx_file.load(f"m.onnx --task regression --calibration {tmp_path}/c.npz")
