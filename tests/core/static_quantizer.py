"""What the files give that ONNX Runtime's own quantizer makes of a graph."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from core.onnx_graph.session import options
from core.source.contract import ModelSource
from core.source.onnx_model import OnnxModel


class _Once(CalibrationDataReader):  # type: ignore[misc]
    """One batch for calibration."""

    def __init__(self, batch: dict[str, NDArray[Any]]) -> None:
        self._left = [batch]

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The next batch; None when there is no more."""
        return self._left.pop() if self._left else None


def statically_quantized(
    model: onnx.ModelProto, name: str, source: ModelSource, folder: Path
) -> NDArray[np.float32]:
    """First output for the selection split of `model`, quantized in `folder` by the defaults of
    `quantize_static`, per channel; input `name` is calibrated on the calibration split.
    """
    onnx.save(model, folder / "f.onnx")
    quantize_static(
        folder / "f.onnx", folder / "q.onnx", _Once({name: source.calibration.inputs.numpy()}),
        per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    plain = ort.SessionOptions()  # as the file says, not as kernels with tables of exponentials do
    plain.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(folder / "q.onnx", plain, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {name: source.selection.inputs.numpy()})
    return np.asarray(found)


def alone(
    model: onnx.ModelProto, nodes: Sequence[str], source: ModelSource, output: str
) -> NDArray[np.float32]:
    """`output` [N, K] for the selection split of the graph `model` of `source`, in which
    `quantize_static` was given `nodes` alone, per channel, calibrated on the calibration split.
    """
    assert isinstance(source.model, OnnxModel)
    feed = source.model.feed
    products = ["MatMul", "Gemm", "Add"]
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder, "f.onnx"), Path(folder, "q.onnx")
            onnx.save(model, files[0])
            quantize_static(
                *files, _Once(feed(source.calibration.inputs)), per_channel=True,
                nodes_to_quantize=list(nodes), activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options={"OpTypesToExcludeOutputQuantization": products, "QuantizeBias": True},
                op_types_to_quantize=["Conv", "MatMul", "Gemm", "Relu"],
            )  # fmt: skip
            session = ort.InferenceSession(files[1], options(), providers=["CPUExecutionProvider"])
            found = session.run([output], feed(source.selection.inputs))[0]
    finally:
        logging.disable(logging.NOTSET)
    return np.asarray(found).reshape(len(found), -1)
