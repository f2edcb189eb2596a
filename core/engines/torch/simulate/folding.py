"""Batch norm folded into the products before it, and what a kernel gives at its end.

Folded in double precision: y = (w x + b - mean) * f + beta with f = gamma / sqrt(var + eps) per
output channel (Jacob et al. 2018, arXiv:1712.05877, section 3.2; `torch.nn.utils.fusion`).
The reference keeps the person's own modules: a batch norm is run as it is until its layer leaves
the reference precision.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.layers import ROOT, Fused, LayerTable
from core.source.fusion import folded_norms, is_inside
from core.source.held import held_tensors
from core.source.operations import Operation, Stored, operand, replace_operand


@dataclass(frozen=True)
class _Kernel:
    """What follows the product of one weight; without a batch norm the operands are its own."""

    fused: Fused
    norm: nn.Module | None
    weight: nn.Parameter | None = None
    bias: nn.Parameter | None = None


class Folding:
    """The kernels of a model: batch norms in their products' operands, activations at the end.

    The folded tensors join `stored`. Does not change the model.
    """

    def __init__(self, model: nn.Module, layers: LayerTable, stored: Stored) -> None:
        self._hosts = folded_norms({layer.name: layer.fused for layer in layers})
        state = model.state_dict(keep_vars=True)
        self._kernels: dict[int, _Kernel] = {}
        for layer in layers:
            for one in layer.fused:
                norm = model.get_submodule(one.batch_norm) if one.batch_norm else None
                weight = state[one.weight]
                kernel = _Kernel(one, norm)
                if norm is not None:
                    bias = next((t.name for t in layer.tensors if t.weight == one.weight), "")
                    spec = next(t for t in layer.tensors if t.name == one.weight)
                    pair = folded(weight, state.get(bias), norm, spec.channel_axis)
                    held = [nn.Parameter(tensor, requires_grad=False) for tensor in pair]
                    kernel = _Kernel(one, norm, *held)
                    stored.add(*held)
                self._kernels[id(weight)] = kernel

    def owners(self, owner: Mapping[str, str | None]) -> dict[str, str | None]:
        """`owner` with every folded batch norm in the hands of its layer."""
        return {**owner, **self._hosts}

    def is_done(self, func: Callable[..., Any], path: str | None) -> bool:
        """Whether `func` is a batch norm that the folded operands of its layer have computed."""
        return func is F.batch_norm and path in self._hosts

    def operands(
        self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a product with the folded weight and bias in place of its own."""
        kernel = self._of(operation, args, kwargs)
        if kernel is None or kernel.weight is None or not operation.weight or not operation.bias:
            return args, kwargs
        given, named = list(args), dict(kwargs)
        replace_operand(operation.weight, kernel.weight, given, named)
        position, keyword = operation.bias
        if position < len(given):
            given[position] = kernel.bias
        else:
            named[keyword] = kernel.bias
        return tuple(given), named

    def end(
        self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> Tensor:
        """What the kernel gives where the product gives `output`: after its batch norm and the
        activation that clips it. Does not change `output`.
        """
        kernel = self._of(operation, args, kwargs)
        if kernel is None:
            return output
        if kernel.norm is not None:
            output = normed(output, kernel.norm)
        return clipped(output, kernel.fused)

    def _of(
        self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> _Kernel | None:
        weight = operand(operation.weight, args, kwargs) if operation.weight else None
        return None if weight is None else self._kernels.get(id(weight))


def folded(
    weight: Tensor, bias: Tensor | None, norm: nn.Module, axis: int
) -> tuple[Tensor, Tensor]:
    """Weight and bias of one product that does what `weight`, `bias` and then `norm` do.

    `axis` is that of the weight's output channels. A transposed convolution in groups has those
    of one group there, and the groups follow each other along the first axis.
    """
    state = {name: t.detach().double() for name, t in norm.state_dict().items()}
    mean, variance = state["running_mean"], state["running_var"]
    factor = (variance + float(norm.eps)).rsqrt()  # type: ignore[arg-type]
    factor = factor * state.get("weight", torch.ones_like(factor))
    start = torch.zeros_like(mean) if bias is None else bias.detach().double()
    shifted = (start - mean) * factor + state.get("bias", torch.zeros_like(mean))
    channels = weight.shape[axis]
    groups = len(factor) // channels
    w = weight.detach().double()
    parts = w.reshape(groups, -1, *w.shape[1:]) if groups > 1 else w.unsqueeze(0)
    shape = [groups] + [1] * w.ndim
    shape[axis + 1] = channels
    scaled = (parts * factor.reshape(shape)).reshape(w.shape)
    return scaled.float(), shifted.float()


def normed(value: Tensor, norm: nn.Module) -> Tensor:
    """`value` after a batch norm with its running statistics, as the module computes it."""
    state = {name: t.detach() for name, t in norm.state_dict().items()}
    mean, variance = state["running_mean"], state["running_var"]
    eps = float(norm.eps)  # type: ignore[arg-type]
    weight, bias = state.get("weight"), state.get("bias")
    return F.batch_norm(value, mean, variance, weight, bias, training=False, eps=eps)


def clipped(value: Tensor, fused: Fused) -> Tensor:
    """`value` as the activation at the end of a kernel lets it through."""
    return value if fused.low is None else value.clamp(fused.low, fused.high)


def stored_tensors(layers: LayerTable, model: nn.Module) -> dict[str, Tensor]:
    """Every tensor of `layers` by name as a runtime stores it in float32, on the CPU: the model's
    own, with batch norms folded into weights and biases. Does not change the model.
    """
    held = held_tensors(model)
    state = {name: tensor.cpu() for name, tensor in held.items()}
    for layer in layers:
        for one in layer.fused:
            if not one.batch_norm:
                continue
            spec = next(t for t in layer.tensors if t.name == one.weight)
            name = next(t.name for t in layer.tensors if t.weight == one.weight)
            norm = model.get_submodule(one.batch_norm)
            pair = folded(held[one.weight], held.get(name), norm, spec.channel_axis)
            state[one.weight], state[name] = (tensor.cpu() for tensor in pair)
    return state


def seen_at(layers: LayerTable) -> dict[str, str]:
    """Module path -> the layer whose own output that module gives ("" is the model itself).

    A product whose batch norm is another module gives what that module gives.
    """
    found: dict[str, str] = {}
    for layer in layers:
        norms = [f.batch_norm for f in layer.fused if f.batch_norm]
        outside = [norm for norm in norms if not is_inside(norm, layer.name)]
        found |= dict.fromkeys(outside, layer.name)
        if not outside and not layer.folded_into:
            found["" if layer.name == ROOT else layer.name] = layer.name
    return found


def clips(layers: LayerTable, rounds_outputs: Collection[str]) -> dict[str, Fused]:
    """Layer -> the activation outside it on whose far side its own output is rounded.

    `rounds_outputs` are the operations whose output the scheme rounds.
    """
    return {
        layer.name: one
        for layer in layers
        if any(kind in rounds_outputs for kind, _ in layer.operations)
        for one in layer.fused
        if one.low is not None and not (one.activation and is_inside(one.activation, layer.name))
    }
