"""AMD Quark for ONNX."""
