"""Where a model is run: on the CPU, or on a CUDA device."""

from __future__ import annotations

import torch
from torch import nn

from core.errors import PolicyError
from core.source.batches import device_of
from core.source.contract import ModelSource

DEVICES = ("cpu", "cuda")


def placed(source: ModelSource, device: str, jobs: int = 1) -> ModelSource:
    """`source` with its model on `device`; data stay on the CPU and follow batch by batch.

    Moves the model. On CUDA products and convolutions are computed in full float32 (no TF32) by
    deterministic kernels, so that runs can be compared bit by bit. Raises `PolicyError` where the
    device is unknown or not there, or where `jobs` processes would share it.
    """
    if device not in DEVICES:
        raise PolicyError(f"{device!r} is no device.", f"Use one of: {', '.join(DEVICES)}.")
    if device == "cuda":
        if not torch.cuda.is_available():
            why = "is built without CUDA" if torch.version.cuda is None else "sees no CUDA device"
            raise PolicyError(
                f"--device cuda: PyTorch {torch.__version__} {why}.",
                "Leave out --device to measure on the CPU, or install a CUDA build of PyTorch on a "
                "machine with an NVIDIA driver.",
            )
        if jobs > 1:
            raise PolicyError(
                "--device cuda takes one process, which has the whole device.", "Leave out --jobs."
            )
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
    source.model.to(device)
    return source


def device_name(model: nn.Module) -> str:
    """What `model` runs on: "cpu", or "cuda" with the name of the card."""
    device = device_of(model)
    if device.type != "cuda":
        return device.type
    return f"cuda ({torch.cuda.get_device_name(device)})"
