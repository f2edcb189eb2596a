"""Every product alone in INT8 by ONNX Runtime's own static quantizer, and run."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

from tests.benchmarks.ranks.ort_reader import Reader
from tests.benchmarks.ranks.shared import (  # fmt: skip
    CALIBRATION,
    EVALUATION,
    MODEL,
    Scores,
    divergence,
    lines,
    products,
    told,
)


def main(folder: Path) -> None:
    """Rank by the divergence of each file."""
    evaluation = lines(folder, EVALUATION)

    def run(path: Path) -> np.ndarray:
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        outputs: np.ndarray = session.run(None, evaluation)[0]
        return outputs

    reference, found = run(folder / MODEL), Scores()
    for name in products(onnx.load(folder / MODEL)):
        with tempfile.TemporaryDirectory() as aside:
            path = Path(aside) / MODEL
            quantize_static(
                folder / MODEL, path, Reader(lines(folder, CALIBRATION)), QuantFormat.QDQ,
                nodes_to_quantize=[name], per_channel=True, activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )  # fmt: skip
            found[name] = divergence(reference, run(path))
    told({"brute force": found})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
