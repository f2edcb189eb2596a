"""TensorRT 11, which is strongly typed: the map is written into the graph, by Q/DQ and Casts.

TensorRT wants symmetric signed grids, Q/DQ at the inputs of what it may fuse, and biases in float
(TensorRT documentation, "Working with Quantized Types", Q/DQ placement): scheme `tensorrt`.
"""

from core.export.targets.onnx_mixed import render

__all__ = ["render"]
