"""The input channels of a product: how wide its weights are along them, and scaling them.

Equalisation follows Xiao et al. 2023, "SmoothQuant", arXiv:2211.10438: a product stays as it is
where an input channel is divided by a factor and the weights that it meets are multiplied by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from core.engines.variant import InputChannels
from core.source.operations import Operation, operand, replace_operand


def input_channels(
    func: Callable[..., Any], operation: Operation, value: Tensor, weight: Tensor | None
) -> InputChannels:
    """Those of `value`, an activation of the product `operation` with `weight`."""
    if weight is None or not (func is F.linear or operation.kind == "conv"):
        return InputChannels(-1)
    axis = 1 - weight.ndim  # behind it the axes that a kernel slides along
    by_channel = _by_channel(operation, weight.detach(), value.shape[axis])
    most = by_channel.abs().flatten(3).amax(dim=(1, 3))
    return InputChannels(axis, most.flatten())


def equalise(
    factors: Tensor, operation: Operation, args: list[Any], kwargs: dict[str, Any]
) -> None:
    """Divide the input channels of `operation` by `factors`, and multiply its weight by them.

    Mutates `args` and `kwargs`, no tensor.
    """
    slot, held = operation.activations[0], operation.weight
    value = operand(slot, args, kwargs)
    weight = operand(held, args, kwargs) if held else None
    if held is None or value is None or weight is None:
        return
    channels = len(factors)
    along = factors.reshape(-1, *[1] * (weight.ndim - 2))
    replace_operand(slot, value / along, args, kwargs)
    by_channel = _by_channel(operation, weight.detach(), channels)
    by_weight = factors.reshape(len(by_channel), 1, -1, *[1] * (by_channel.ndim - 3))
    replace_operand(held, (by_channel * by_weight).reshape(weight.shape), args, kwargs)


def _by_channel(operation: Operation, weight: Tensor, channels: int) -> Tensor:
    """A view of `weight`, shape (groups, outputs, inputs, 1, kernel ...), in which input channel
    `group * inputs + input` stands at [group, :, input].
    """
    kernel = (1, *weight.shape[2:])
    if operation.kind == "conv" and operation.out_channel_axis == 1:  # transposed
        return weight.reshape(channels, -1, 1, *kernel)
    inputs = weight.shape[1]
    return weight.reshape(channels // inputs, -1, inputs, *kernel)
