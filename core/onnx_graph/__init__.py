"""ONNX as data: its nodes and their layers, quantized, halved, and run in sessions."""
