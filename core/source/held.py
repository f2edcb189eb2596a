"""What a model holds: parameters, buffers, saved or not, and tensors that are plain attributes."""

from __future__ import annotations

from torch import Tensor, nn

from core.source.trees import named_tensors

_OWN = frozenset(vars(nn.Module()))
"""Attributes of every module, parameters and buffers among them."""


def held_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every tensor of `model` by name, a shared one under each of its names; parameters first, then
    buffers, then attributes. Does not change the model.
    """
    found: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    found |= dict(model.named_buffers(remove_duplicate=False))
    for path, module in model.named_modules():
        for key, value in vars(module).items():
            if key not in _OWN:
                name = f"{path}.{key}" if path else key
                found |= {f"{name}{place}": t for place, t in named_tensors(value)}
    return found
