"""What the file gives that ONNX Runtime's own quantizer makes of a graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from core.source.contract import ModelSource


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
