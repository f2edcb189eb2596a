"""What every process of this benchmark reads: the file, its products, the lines, and the judge."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

MODEL, CALIBRATION, EVALUATION = "model.onnx", "calibration.npz", "evaluation.npz"
SMALLEST = 1e-9
PRODUCTS = ("Conv", "MatMul", "Gemm")

Scores = dict[str, float]


def products(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that multiply by a weight."""
    weights = {constant.name for constant in model.graph.initializer}
    return [n.name for n in model.graph.node if n.op_type in PRODUCTS and n.input[1] in weights]


def lines(folder: Path, file: str) -> dict[str, NDArray[np.float32]]:
    """The arrays of one file by the name of the input."""
    with np.load(folder / file) as found:
        return {name: found[name] for name in found if name != "targets"}


def divergence(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """Mean KL in nats of rows of probabilities; higher = more sensitive."""
    p, q = (np.maximum(x.astype(np.float64), SMALLEST) for x in (before, after))
    return float((p * np.log(p / q)).sum(axis=1).mean())


def told(scores: dict[str, Scores]) -> None:
    """Print the rankings of a process as its last line."""
    sys.stdout.write("\n" + json.dumps(scores) + "\n")
