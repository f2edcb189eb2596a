"""Weights and scaler in one safetensors file, so that they cannot be parted.

Tensors are named `model.<module path>` and `scaler.<field>`. The header's metadata keeps the
configuration and the feature names as JSON.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch

from sample_models.checkpoint import (
    WEIGHTS_NAME,
    TensorFile,
    model_tensors,
    rebuild_step,
    write_tensor_file,
)
from sample_models.informer.features import FEATURES
from sample_models.informer.model import InformerClassifier, InformerConfig
from sample_models.informer.windows import Scaler

__all__ = ["WEIGHTS_NAME", "Checkpoint", "load_checkpoint", "save_checkpoint"]

FORMAT_VERSION = "1"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model in evaluation mode and the scaler that its inputs went through."""

    model: InformerClassifier
    scaler: Scaler


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write model and scaler to `path`, replacing it in one step."""
    tensors = model_tensors(checkpoint.model)
    for field in fields(Scaler):
        values = getattr(checkpoint.scaler, field.name)
        tensors[f"scaler.{field.name}"] = torch.from_numpy(np.array(values))
    metadata = {
        "format_version": FORMAT_VERSION,
        "config": json.dumps(asdict(checkpoint.model.config)),
        "features": json.dumps(list(FEATURES)),
    }
    write_tensor_file(path, tensors, metadata)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ModelError: The file is missing, too large, truncated, of another model or version, or
            holds tensors that are missing, of another shape or type, or not finite.
    """
    file = TensorFile.read(path, rebuild_step("informer"))
    model = InformerClassifier(_config(file))
    model.load_state_dict(file.model_state(model))
    return Checkpoint(model.eval(), _scaler(file, model.config.features))


def _config(file: TensorFile) -> InformerConfig:
    """The configuration, which must be one that this code can build with these features."""
    file.check_version(FORMAT_VERSION)
    names, stored = file.entry("features"), file.entry("config")
    if names != list(FEATURES):
        raise file.error(f"The weights file {file.path} was trained on other features.")
    if stored != json.loads(json.dumps(asdict(InformerConfig()))):
        raise file.error(f"The weights file {file.path} holds a model of another shape.")
    return InformerConfig()


def _scaler(file: TensorFile, features: int) -> Scaler:
    """The scaler, whose scale must be positive and whose bounds must be ordered."""
    arrays = {
        field.name: file.tensor(f"scaler.{field.name}", (features,), torch.float32).numpy()
        for field in fields(Scaler)
    }
    scaler = Scaler(**arrays)
    if (scaler.scale <= 0).any() or (scaler.clip_low > scaler.clip_high).any():
        raise file.error(f"The scaler in {file.path} is not usable: scale or bounds.")
    return scaler
