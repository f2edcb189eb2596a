"""What the tests of every bundled sample share: the keys of `load`, and damaged weights files."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

KEYS = {
    "name",
    "title",
    "description",
    "model",
    "calibration",
    "evaluation",
    "holdout",
    "task",
    "class_names",
    "units",
    "roles",
    "input_names",
    "weights_path",
    "data_path",
    "data_description",
}
"""Every key of the dict that a sample's `load` returns."""


def replace_entry(path: Path, entry: str, value: Tensor | str | None) -> None:
    """Replace a tensor or a header entry of a weights file; None removes it."""
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
        tensors = {key: file.get_tensor(key).clone() for key in list(file.keys())}
    tensors.pop(entry, None)
    metadata.pop(entry, None)
    if isinstance(value, Tensor):
        tensors[entry] = value
    elif value is not None:
        metadata[entry] = value
    save_file(tensors, path, metadata=metadata)
