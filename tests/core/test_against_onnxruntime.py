"""Folding, fused activations and dynamic ranges against what ONNX Runtime itself computes.

The ONNX graphs are built by hand, so that no exporter stands between.
"""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from core.evidence.measure.measure import make_simulator
from core.evidence.options import MeasureOptions
from core.numerics.precision import INT8
from core.numerics.saturation import saturates
from core.onnx_graph.session import PROVIDERS, options
from core.source.inventory import take_inventory
from tests.zoo import awkward, by_hand, fusing
from tests.zoo.sources import source_of

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
quantization = pytest.importorskip("onnxruntime.quantization")
Floats = NDArray[np.float32]


def _saved(
    path: Path, nodes: list[Any], given: list[Any], outputs: dict[str, list[Any]],
    stored: dict[str, Floats],
) -> Path:  # fmt: skip
    """Write a graph of `nodes` with one input `x` of shape `given`."""
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "graph", [helper.make_tensor_value_info("x", real, given)],
        [helper.make_tensor_value_info(name, real, shape) for name, shape in outputs.items()],
        [onnx.numpy_helper.from_array(value, name) for name, value in stored.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


class _Once(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
    def __init__(self, x: Tensor) -> None:
        self._batches = iter([{"x": x.numpy()}])

    def get_next(self) -> Any:
        """The only batch, then None."""
        return next(self._batches, None)


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    """The quantizer asks for shape inference, which such graphs do not need."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("case", [fusing.ConvNormFunctionalRelu, fusing.ConvNorm])
def test_a_folded_convolution_is_what_onnxruntime_runs(
    case: type[fusing.ConvNorm], tmp_path: Path
) -> None:
    """Convolution with folded batch norm (and ReLU), quantized by ONNX Runtime's static quantizer,
    gives what the simulator gives: an integer kernel whose output is rounded behind the ReLU.
    Tolerance: a thousandth of the INT8 error on average, one step at most.
    """
    torch.manual_seed(0)
    model = fusing.trained(case())
    assert isinstance(model, fusing.ConvNorm)
    source = source_of(model, model.SHAPE)
    fused = fuse_conv_bn_eval(copy.deepcopy(model.conv), copy.deepcopy(model.bn))
    assert fused.bias is not None
    has_relu = case is fusing.ConvNormFunctionalRelu
    nodes = [onnx.helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv")]
    if has_relu:
        nodes.append(onnx.helper.make_node("Relu", ["y"], ["z"], name="relu"))
    output = "z" if has_relu else "y"
    weights = {"w": fused.weight.detach().numpy(), "b": fused.bias.detach().numpy()}
    plain = _saved(
        tmp_path / "plain.onnx", nodes, ["N", 2, 6, 6], {output: ["N", 5, 4, 4]}, weights
    )
    path = tmp_path / "int8.onnx"
    quantization.quantize_static(
        plain, path, _Once(source.calibration.inputs),
        quant_format=quantization.QuantFormat.QDQ, per_channel=True,
        activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
    )  # fmt: skip
    x = source.selection.inputs
    session = ort.InferenceSession(path, options(), providers=PROVIDERS)
    expected = model.pooled(torch.from_numpy(session.run(None, {"x": x.numpy()})[0])).numpy()
    with torch.no_grad():
        error = np.abs(model(x).numpy() - expected)

    found = make_simulator(source, take_inventory(source), MeasureOptions()).run({"conv": INT8}, x)

    assert "Relu" not in {node.op_type for node in onnx.load(path).graph.node}
    assert np.abs(found - expected).mean() < 1e-3 * error.mean()
    assert np.abs(found - expected).max() < error.max()


def _gates(rows: Tensor) -> Floats:
    """PyTorch's gate order i, f, g, o as ONNX has it: i, o, f, c."""
    i, f, g, o = rows.detach().chunk(4)
    return torch.cat([i, o, f, g]).numpy()


def test_a_dynamic_lstm_is_what_onnxruntime_runs(tmp_path: Path) -> None:
    """An LSTM through ONNX Runtime's dynamic quantizer, sample by sample, is at least 20 dB nearer
    to the simulation than to FP32; with the ranges of a batch its error is of the same size. An
    LSTM with rounded weights alone is no such simulation.
    """
    torch.manual_seed(0)
    steps, width, hidden = 9, 6, 16
    model = awkward.LastOutput(nn.LSTM(width, hidden, batch_first=True))
    source = source_of(model, (steps, width), samples=48)
    lstm = model.recurrent
    assert isinstance(lstm, nn.LSTM)
    biases = [_gates(lstm.bias_ih_l0), _gates(lstm.bias_hh_l0)]
    weights = {
        "w": _gates(lstm.weight_ih_l0)[None],
        "r": _gates(lstm.weight_hh_l0)[None],
        "b": np.concatenate(biases)[None],
    }
    node = onnx.helper.make_node("LSTM", ["x", "w", "r", "b"], ["y"], hidden_size=hidden, name="l")
    plain = _saved(
        tmp_path / "plain.onnx",
        [node],
        [steps, "N", width],
        {"y": [steps, 1, "N", hidden]},
        weights,
    )
    path = tmp_path / "int8.onnx"
    quantization.quantize_dynamic(
        plain, path, per_channel=True, weight_type=quantization.QuantType.QInt8
    )
    assert [n.op_type for n in onnx.load(path).graph.node] == ["DynamicQuantizeLSTM"]
    session = ort.InferenceSession(path, options(), providers=PROVIDERS)
    x = source.selection.inputs

    def run(part: Tensor) -> Floats:
        out: Floats = session.run(None, {"x": part.transpose(0, 1).numpy()})[0][-1, 0]
        return out

    alone = np.concatenate([run(sample[None]) for sample in x])
    together = run(x)
    with torch.no_grad():
        reference = model(x).numpy()

    found = make_simulator(source, take_inventory(source), MeasureOptions()).run(
        {"recurrent": INT8}, x
    )

    def distance_db(a: Floats, b: Floats) -> float:
        return float(10 * np.log10(np.square(reference).sum() / np.square(a - b).sum()))

    assert distance_db(found, alone) > distance_db(reference, alone) + 20
    weight_only = copy.deepcopy(model)
    weight_only.load_state_dict(
        {k: by_hand.symmetric(v) if v.ndim == 2 else v for k, v in model.state_dict().items()}
    )
    with torch.no_grad():
        assert distance_db(weight_only(x).numpy(), alone) < distance_db(reference, alone) + 6
    assert abs(distance_db(found, reference) - distance_db(together, reference)) < 6


def test_sums_saturate_where_the_processor_is_said_to_and_not_in_our_sessions(
    tmp_path: Path,
) -> None:
    """A plain session clips the sum of every pair of products to 16 bits exactly where `saturates`
    says so; with our options every sum is that of integers. Both are held against NumPy.
    """
    rng = np.random.default_rng(0)
    x = rng.integers(180, 256, (5, 64), dtype=np.uint8)
    weight = rng.integers(60, 128, (64, 24)) * rng.choice([-1, 1], (64, 24), p=[0.2, 0.8])
    helper, kinds = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"], "product")], "graph",
        [helper.make_tensor_value_info("x", kinds.UINT8, x.shape)],
        [helper.make_tensor_value_info("y", kinds.INT32, [5, 24])],
        [onnx.numpy_helper.from_array(weight.astype(np.int8), "w")],
    )  # fmt: skip
    path = tmp_path / "product.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    exact = x.astype(np.int64) @ weight
    products = x[:, :, None].astype(np.int64) * weight
    pairs = products[:, ::2] + products[:, 1::2]
    clipped = np.clip(pairs, -(2**15), 2**15 - 1).sum(axis=1)

    (plain,) = ort.InferenceSession(path, providers=PROVIDERS).run(None, {"x": x})
    (ours,) = ort.InferenceSession(path, options(), providers=PROVIDERS).run(None, {"x": x})

    assert np.abs(clipped - exact).min() > 0
    np.testing.assert_array_equal(plain, clipped if saturates() else exact)
    np.testing.assert_array_equal(ours, exact)


def test_onnxruntime_has_no_integer_kernel_for_other_recurrent_layers() -> None:
    """The dynamic quantizer knows the LSTM and no GRU or RNN, which is why those are weight-only."""
    from onnxruntime.quantization.registry import IntegerOpsRegistry

    assert {"LSTM", "GRU", "RNN"} & set(IntegerOpsRegistry) == {"LSTM"}
