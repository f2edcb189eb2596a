"""What a source hands over: a model, its data and what is known of its layers.

A source is a function that returns a plain dict, so that a bundled sample and a person's own
file share one road and need not import this package. `model_source` checks the dict once; all
that follows relies on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import DataError, ModelError

REQUIRED = ("name", "model", "calibration", "evaluation", "task")
TASKS = ("classification",)


@dataclass(frozen=True)
class Split:
    """Inputs [N, ...] with targets [N] (None where labels are unknown)."""

    inputs: Tensor
    targets: Tensor | None = None

    def __len__(self) -> int:
        return int(self.inputs.shape[0])


@dataclass(frozen=True)
class ModelSource:
    """A checked source. `model` is in evaluation mode; splits never overlap."""

    name: str
    title: str
    description: str
    model: nn.Module
    calibration: Split
    selection: Split
    holdout: Split | None
    task: str
    class_names: tuple[str, ...]
    units: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    reference: str = ""
    data_description: str = ""

    def fingerprint(self) -> str:
        """SHA-256 of the model's class, tensor names, shapes and bytes."""
        digest = hashlib.sha256()
        digest.update(type(self.model).__qualname__.encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def data_fingerprint(self) -> str:
        """SHA-256 of the calibration and selection tensors."""
        digest = hashlib.sha256()
        for split in (self.calibration, self.selection):
            for tensor in (split.inputs, split.targets):
                if tensor is not None:
                    digest.update(str(tuple(tensor.shape)).encode())
                    digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def _inputs(value: object, key: str) -> Tensor:
    if isinstance(value, tuple) and len(value) == 1:  # the arguments of a one-input model
        (value,) = value
    if not isinstance(value, Tensor) or value.ndim < 1:
        raise DataError(
            f"The source's {key!r} holds {type(value).__name__}, not a tensor of samples.",
            "Give a tensor whose first axis counts samples.",
        )
    if value.shape[0] == 0:
        raise DataError(f"The source's {key!r} holds no sample.", "Give at least one sample.")
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        bad = int((~torch.isfinite(value)).flatten(1).any(1).nonzero()[0, 0])
        raise DataError(
            f"The source's {key!r} holds NaN or infinity, first in sample {bad}.",
            "Clean the data before the analysis: a range with NaN calibrates nothing.",
        )
    return value


def _split(value: object, key: str) -> Split:
    if not isinstance(value, tuple) or len(value) != 2:
        raise DataError(
            f"The source's {key!r} is not a pair (inputs, targets).",
            "Return a tuple of two tensors.",
        )
    inputs, targets = _inputs(value[0], key), value[1]
    if not isinstance(targets, Tensor) or targets.shape[:1] != inputs.shape[:1]:
        raise DataError(
            f"The source's {key!r} has {len(inputs)} inputs and targets of another length.",
            "Give one target for each sample.",
        )
    return Split(inputs, targets)


def check_weights(model: nn.Module) -> None:
    """Raise `ModelError` naming the first parameter that is not finite."""
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not bool(torch.isfinite(parameter).all()):
            raise ModelError(
                f"Weight {name!r} holds NaN or infinity.",
                "Load an intact checkpoint: no figure can be computed from such weights.",
            )


def model_source(spec: Mapping[str, Any]) -> ModelSource:
    """Check a source's dict and return it as a `ModelSource`.

    Puts the model in evaluation mode. Raises `DataError` or `ModelError` naming the key.
    """
    missing = [key for key in REQUIRED if key not in spec]
    if missing:
        raise DataError(
            f"The source gives no {', '.join(repr(m) for m in missing)}.",
            f"Return a dict with the keys {', '.join(REQUIRED)}.",
        )
    model = spec["model"]
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"The source's 'model' is a {type(model).__name__}, not an nn.Module.",
            "Return the module itself.",
        )
    if spec["task"] not in TASKS:
        raise DataError(
            f"Task {spec['task']!r} is not supported.", f"Use one of: {', '.join(TASKS)}."
        )
    check_weights(model)
    model.eval()
    known = {name for name, _ in model.named_modules()}
    for key in ("units", "roles"):
        unknown = [path for path in spec.get(key, ()) if path not in known]
        if unknown:
            raise ModelError(
                f"The source's {key!r} names {unknown[0]!r}, which is no module of the model.",
                "Use module paths as model.named_modules() prints them.",
            )
    holdout = spec.get("holdout")
    return ModelSource(
        name=str(spec["name"]),
        title=str(spec.get("title", spec["name"])),
        description=str(spec.get("description", "")),
        model=model,
        calibration=Split(_inputs(spec["calibration"], "calibration")),
        selection=_split(spec["evaluation"], "evaluation"),
        holdout=None if holdout is None else _split(holdout, "holdout"),
        task=str(spec["task"]),
        class_names=tuple(str(c) for c in spec.get("class_names", ())),
        units=tuple(spec.get("units", ())),
        roles=dict(spec.get("roles", {})),
        reference=str(spec.get("reference", "")),
        data_description=str(spec.get("data_description", "")),
    )
