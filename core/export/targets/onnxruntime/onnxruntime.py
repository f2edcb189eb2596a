"""ONNX Runtime: a script that builds the mixed model, Q/DQ around INT8 nodes and Casts to FP16."""

from __future__ import annotations

from core.export.targets.contract import ExportRequest
from core.export.targets.floats import nodes_in
from core.export.targets.kernels import with_activations
from core.export.targets.script import MIXED, python


def render(request: ExportRequest) -> str:
    """A Python script with `nodes_to_quantize` and the block list of the FP16 conversion.

    Weights symmetric per channel, activations affine unsigned per tensor, outputs of MatMul and
    Gemm float: scheme `ort-cpu` (core/numerics/scheme.py).
    """
    return python(
        request,
        MIXED,
        {
            "INT8_NODES": with_activations(request),
            "FP16_NODES": nodes_in(request, "FP16"),
            "PER_CHANNEL": True,
            "ACTIVATIONS": "QUInt8",
            "WEIGHTS": "QInt8",
            "EXTRA": {
                "WeightSymmetric": True,
                "ActivationSymmetric": False,
                "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
            },
        },
    )
