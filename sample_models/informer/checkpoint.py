"""Weights and scaler in one safetensors file, so that they cannot be parted.

Tensors are named `model.<module path>` and `scaler.<field>`. The header's metadata keeps the
configuration and the feature names as JSON. The format holds no code.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from core.errors import ModelError
from sample_models.informer.features import FEATURES
from sample_models.informer.model import InformerClassifier, InformerConfig
from sample_models.informer.windows import Scaler

WEIGHTS_NAME = "weights.safetensors"
MAX_FILE_BYTES = 100_000_000
FORMAT_VERSION = "1"
REBUILD = (
    "Restore the shipped file (git checkout), or rebuild it with "
    "`python -m sample_models.informer.train`."
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model in evaluation mode and the scaler that its inputs went through."""

    model: InformerClassifier
    scaler: Scaler


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write model and scaler to `path`, replacing it in one step."""
    state = checkpoint.model.state_dict()
    tensors = {f"model.{name}": value.contiguous() for name, value in state.items()}
    for field in fields(Scaler):
        values = getattr(checkpoint.scaler, field.name)
        tensors[f"scaler.{field.name}"] = torch.from_numpy(np.array(values))
    metadata = {
        "format_version": FORMAT_VERSION,
        "config": json.dumps(asdict(checkpoint.model.config)),
        "features": json.dumps(list(FEATURES)),
    }
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, metadata=metadata)
    partial.chmod(0o644)  # The library writes files that only their owner can read.
    partial.replace(path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ModelError: The file is missing, too large, truncated, of another model or version, or
            holds tensors that are missing, of another shape or type, or not finite.
    """
    metadata, tensors = _read(path)
    model = InformerClassifier(_config(path, metadata))
    model.load_state_dict(_model_tensors(path, model, tensors))
    scaler = _scaler(path, tensors, model.config.features)
    return Checkpoint(model.eval(), scaler)


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header metadata and all tensors, after a check of the file's size."""
    if not path.is_file():
        raise ModelError(f"The weights file {path} does not exist.", REBUILD)
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ModelError(
            f"The weights file {path} has {size / 1e6:.0f} MB; "
            f"at most {MAX_FILE_BYTES / 1e6:.0f} MB are read.",
            REBUILD,
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            names = list(file.keys())
            return metadata, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"The weights file {path} is truncated or damaged ({error}).", REBUILD
        ) from error


def _config(path: Path, metadata: dict[str, str]) -> InformerConfig:
    """The configuration, which must be one that this code can build with these features."""
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise ModelError(
            f"The weights file {path} has format version {version}, not {FORMAT_VERSION}.", REBUILD
        )
    try:
        names: Any = json.loads(metadata["features"])
        stored: Any = json.loads(metadata["config"])
        expected = json.loads(json.dumps(asdict(InformerConfig())))
    except (KeyError, ValueError, RecursionError) as error:
        raise ModelError(f"The header of {path} cannot be read ({error}).", REBUILD) from error
    if names != list(FEATURES):
        raise ModelError(f"The weights file {path} was trained on other features.", REBUILD)
    if stored != expected:
        raise ModelError(f"The weights file {path} holds a model of another shape.", REBUILD)
    return InformerConfig()


def _model_tensors(
    path: Path, model: InformerClassifier, tensors: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The model's state, every tensor checked against the module it belongs to."""
    return {
        name: _checked(path, tensors, f"model.{name}", tuple(value.shape))
        for name, value in model.state_dict().items()
    }


def _scaler(path: Path, tensors: dict[str, Tensor], features: int) -> Scaler:
    """The scaler, whose scale must be positive and whose bounds must be ordered."""
    arrays = {
        field.name: _checked(path, tensors, f"scaler.{field.name}", (features,)).numpy()
        for field in fields(Scaler)
    }
    scaler = Scaler(**arrays)
    if (scaler.scale <= 0).any() or (scaler.clip_low > scaler.clip_high).any():
        raise ModelError(f"The scaler in {path} is not usable: scale or bounds.", REBUILD)
    return scaler


def _checked(path: Path, tensors: dict[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    """One tensor that exists, has the expected shape and type, and is finite."""
    tensor = tensors.get(name)
    if tensor is None:
        raise ModelError(f"The weights file {path} lacks the tensor {name}.", REBUILD)
    if tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
        raise ModelError(
            f"The tensor {name} in {path} is {tensor.dtype} {list(tensor.shape)}; "
            f"torch.float32 {list(shape)} is expected.",
            REBUILD,
        )
    if not bool(torch.isfinite(tensor).all()):
        raise ModelError(f"The tensor {name} in {path} holds NaN or infinity.", REBUILD)
    return tensor
