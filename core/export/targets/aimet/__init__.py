"""Qualcomm AIMET for ONNX."""
