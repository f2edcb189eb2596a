"""ONNX Runtime: a script that builds the mixed model, Q/DQ around INT8 nodes and Casts to FP16."""

from core.export.targets.onnx_mixed import render

__all__ = ["render"]
