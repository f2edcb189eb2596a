"""What the digits models have in common: their inputs, their file and their contract."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sample_models.checkpoint import (
    WEIGHTS_NAME,
    TensorFile,
    model_tensors,
    rebuild_step,
    write_tensor_file,
)
from sample_models.digits.images import CLASS_NAMES, SIDE, SPLITS, Images, data_path, load_splits

FORMAT_VERSION = "1"


class DigitClassifier(nn.Module):
    """A network [N, 1, 8, 8] float32 in [-1, 1] -> logits [N, 10]; its defaults are shipped.

    `config` is a frozen dataclass of numbers that fixes the shape of every tensor. `package` is
    the folder below `sample_models`.
    """

    config: Any
    package: str

    def check_inputs(self, x: Tensor) -> None:
        """Raise `ValueError` for anything but a batch of images, which might broadcast."""
        if tuple(x.shape[1:]) != (1, SIDE, SIDE):
            raise ValueError(f"inputs are {list(x.shape)}, not [N, 1, {SIDE}, {SIDE}]")


Model = TypeVar("Model", bound=DigitClassifier)


def save_model(path: Path, model: DigitClassifier) -> None:
    """Write the weights to `path`, with the configuration in the header."""
    metadata = {
        "format_version": FORMAT_VERSION,
        "model": json.dumps(type(model).__name__),
        "config": json.dumps(asdict(model.config)),
    }
    write_tensor_file(path, model_tensors(model), metadata)


def load_model(path: Path, kind: type[Model]) -> Model:
    """Read a model of the class `kind`, in evaluation mode. Leaves the random state alone.

    Raises:
        ModelError: The file is missing, too large, truncated, of another model or version, or
            holds tensors that are missing, of another shape or type, not finite or impossible.
    """
    file = TensorFile.read(path, rebuild_step(kind.package))
    file.check_version(FORMAT_VERSION)
    name = file.entry("model")
    if name != kind.__name__:
        raise file.error(f"The weights file {path} holds a {name}, not a {kind.__name__}.")
    with torch.random.fork_rng(devices=[]):  # Initial weights are drawn only to be replaced.
        model = kind()
    if file.entry("config") != json.loads(json.dumps(asdict(model.config))):
        raise file.error(f"The weights file {path} holds a model of another shape.")
    state = file.model_state(model)
    for tensor_name, tensor in state.items():
        if tensor_name.endswith("running_var") and bool((tensor < 0).any()):
            raise file.error(f"The tensor {tensor_name} in {path} holds a negative variance.")
    model.load_state_dict(state)
    return model.eval()


def load_sample(
    kind: type[Model], shipped: Path, root: Path | None
) -> tuple[Model, dict[str, Any]]:
    """Model and data, with every entry of the contract that is the same for all digits samples.

    Args:
        kind: Class of the model.
        shipped: Folder with the shipped weights; the data lie in `sample_models/digits`.
        root: Another folder with `weights.safetensors` and `data.npz` of its own.

    Returns:
        The model and a dict with model, calibration [128, 1, 8, 8], evaluation and holdout (450
        images each, with int64 targets), task, class_names, input_names, weights_path, data_path
        and data_description.
    """
    weights = (root or shipped) / WEIGHTS_NAME
    model = load_model(weights, kind)
    data = data_path(root)
    splits = load_splits(data, rebuild_step(kind.package))
    sizes = ", ".join(f"{name} {len(splits[name]):,}" for name in SPLITS)
    return model, {
        "model": model,
        "calibration": splits["calibration"].inputs(),
        "evaluation": _labelled(splits["selection"]),
        "holdout": _labelled(splits["holdout"]),
        "task": "classification",
        "class_names": CLASS_NAMES,
        "input_names": ("images",),
        "weights_path": weights,
        "data_path": data,
        "data_description": (
            "Real 8x8 grey images of handwritten digits (UCI optical recognition of handwritten "
            f"digits, as scikit-learn carries it): {sizes}."
        ),
    }


def _labelled(images: Images) -> tuple[tuple[Tensor, ...], Tensor]:
    """Inputs and targets as the core takes them."""
    return (images.inputs(),), images.targets()
