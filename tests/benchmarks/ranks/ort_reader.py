"""Calibration lines as ONNX Runtime's quantizer asks for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader

AT_ONCE = 32


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """`arrays` [N, …] by name, some lines at a time."""

    def __init__(self, arrays: dict[str, NDArray[np.float32]]) -> None:
        self._arrays, self._next = arrays, 0
        self._count = len(next(iter(arrays.values())))

    def get_next(self) -> dict[str, Any] | None:
        """The next lines; None after the last."""
        start, self._next = self._next, self._next + AT_ONCE
        if start >= self._count:
            return None
        return {name: values[start : self._next] for name, values in self._arrays.items()}
