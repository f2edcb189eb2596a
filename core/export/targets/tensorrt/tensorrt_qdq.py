"""TensorRT 11, which is strongly typed: the map is written into the graph, by Q/DQ and Casts."""

from __future__ import annotations

from core.export.targets.contract import ExportRequest
from core.export.targets.floats import nodes_in
from core.export.targets.script import MIXED, python

PRODUCTS = ["Conv", "ConvTranspose", "Gemm", "MatMul"]


def render(request: ExportRequest) -> str:
    """A Python script that inserts Q/DQ before INT8 nodes and Casts around FP16 ones.

    TensorRT wants symmetric signed grids, Q/DQ at the inputs of what it may fuse, and biases in
    float (TensorRT documentation, "Working with Quantized Types", Q/DQ placement).
    """
    return python(
        request,
        MIXED,
        {
            "INT8_NODES": request.integers,
            "FP16_NODES": nodes_in(request, "FP16"),
            "PER_CHANNEL": True,
            "ACTIVATIONS": "QInt8",
            "WEIGHTS": "QInt8",
            "EXTRA": {
                "WeightSymmetric": True,
                "ActivationSymmetric": True,
                "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": PRODUCTS,
            },
        },
    )
