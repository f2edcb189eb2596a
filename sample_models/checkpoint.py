"""Tensors and a JSON header in one safetensors file, checked as they are read.

The format holds no code. What a file must contain is said by the sample that reads it; here is
how it is opened and how a tensor or a header entry that cannot be used is named.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from core.errors import ModelError

WEIGHTS_NAME = "weights.safetensors"
MODEL_PREFIX = "model."
MAX_FILE_BYTES = 100_000_000


def rebuild_step(package: str) -> str:
    """What to do about a file of the sample `package` that cannot be used."""
    return (
        "Restore the shipped file (git checkout), or rebuild it with "
        f"`python -m sample_models.{package}.train`."
    )


def write_tensor_file(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write `tensors` and the header `metadata` to `path`, replacing it in one step."""
    whole = {name: value.contiguous() for name, value in tensors.items()}
    partial = path.with_name(path.name + ".partial")
    save_file(whole, partial, metadata=dict(metadata))
    partial.chmod(0o644)  # The library writes files that only their owner can read.
    partial.replace(path)


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state of `model` under the names that `TensorFile.model_state` reads."""
    return {MODEL_PREFIX + name: value for name, value in model.state_dict().items()}


@dataclass(frozen=True, slots=True)
class TensorFile:
    """What a weights file holds. `next_step` ends every error about it."""

    path: Path
    metadata: Mapping[str, str]
    tensors: Mapping[str, Tensor]
    next_step: str

    @classmethod
    def read(cls, path: Path, next_step: str) -> Self:
        """Read header and all tensors, after a check of the file's size.

        Raises:
            ModelError: The file is missing, too large, truncated or damaged.
        """
        if not path.is_file():
            raise ModelError(f"The weights file {path} does not exist.", next_step)
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ModelError(
                f"The weights file {path} has {size / 1e6:.0f} MB; "
                f"at most {MAX_FILE_BYTES / 1e6:.0f} MB are read.",
                next_step,
            )
        try:
            with safe_open(path, framework="pt") as file:
                metadata = dict(file.metadata() or {})
                tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(
                f"The weights file {path} is truncated or damaged ({error}).", next_step
            ) from error
        return cls(path, metadata, tensors, next_step)

    def check_version(self, expected: str) -> None:
        """Raise `ModelError` unless the header's format version is `expected`."""
        version = self.metadata.get("format_version")
        if version != expected:
            raise self.error(
                f"The weights file {self.path} has format version {version}, not {expected}."
            )

    def entry(self, key: str) -> Any:
        """The header's JSON value under `key`."""
        try:
            return json.loads(self.metadata[key])
        except (KeyError, ValueError, RecursionError) as error:
            raise self.error(f"The header of {self.path} cannot be read ({error}).") from error

    def tensor(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """One tensor that exists, has the expected shape and type, and is finite."""
        tensor = self.tensors.get(name)
        if tensor is None:
            raise self.error(f"The weights file {self.path} lacks the tensor {name}.")
        if tuple(tensor.shape) != shape or tensor.dtype != dtype:
            raise self.error(
                f"The tensor {name} in {self.path} is {tensor.dtype} {list(tensor.shape)}; "
                f"{dtype} {list(shape)} is expected."
            )
        if not bool(torch.isfinite(tensor).all()):
            raise self.error(f"The tensor {name} in {self.path} holds NaN or infinity.")
        return tensor

    def model_state(self, model: nn.Module) -> dict[str, Tensor]:
        """A state for `model`, every tensor checked against the module it belongs to."""
        return {
            name: self.tensor(MODEL_PREFIX + name, tuple(value.shape), value.dtype)
            for name, value in model.state_dict().items()
        }

    def error(self, cause: str) -> ModelError:
        """An error about this file, with what to do about it."""
        return ModelError(cause, self.next_step)
