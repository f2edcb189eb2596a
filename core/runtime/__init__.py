"""The real thing: a map built as a model of ONNX Runtime, run, and measured."""
