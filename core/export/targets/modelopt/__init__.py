"""NVIDIA ModelOpt: INT8 modules in PyTorch, and FP16 nodes by AutoCast."""
