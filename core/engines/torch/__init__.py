"""PyTorch modules, run and replayed under an assignment."""
