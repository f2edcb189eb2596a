"""The engine of ONNX graphs: ONNX Runtime itself."""
