"""How a scheme does integers, in terms of ONNX nodes."""

from __future__ import annotations

from typing import Any

from core.numerics.scheme import Scheme

KINDS = {"Conv": "conv", "MatMul": "matmul", "Gemm": "linear"}
"""Operators with integer kernels, and the kind of operation whose output a scheme may round."""


def grids_of(scheme: Scheme) -> dict[str, Any]:
    """The fields of `core.onnx_graph.surgery.Grids`, as plain data."""
    return {
        "symmetric": scheme.activations == "symmetric",
        "per_channel": scheme.weights_per_channel,
        "integer_bias": scheme.bias == "int32",
        "rounded": [op for op, kind in KINDS.items() if kind in scheme.rounds_outputs],
    }
