"""Gradients of the outputs with respect to every layer's own output and weights, all at once.

A random combination u of the outputs with E[u u^T] = F, the Fisher information of softmax
(diag(p) - p p^T) or the identity for values, is pulled back through the model. For a small error dy
of a layer's output, E[(g . dy)^2] is then dy^T J^T F J dy: twice the KL divergence of the outputs to
second order, or the squared change of values. Hutchinson 1990, doi:10.1080/03610919008812866.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from core.evidence.diagnose.weights import squares
from core.source.batches import (
    SEED,
    Inputs,
    Output,
    call,
    copied,
    fixed_random_state,
    fused_attention_off,
    read_output,
    state_kept,
)
from core.source.trees import map_tensors


@dataclass(frozen=True, eq=False)
class Pulled:
    """One random combination of the outputs of a batch of N samples, pulled back.

    `outputs`: layer -> gradient for each floating tensor that its calls gave; absent where
    no differentiable path leads on. `weights`: parameter -> squared norm of its gradient.
    """

    outputs: dict[str, list[Tensor]]
    weights: dict[str, float]

    def squared_dot(self, layer: str, errors: list[Tensor], samples: int) -> float:
        """Sum over samples of (g . dy)^2, dy the `errors` of the calls of `layer`.

        Where an output does not have a row for each sample, the dot product of the whole batch is
        squared: the same expectation, since combinations of two samples are independent.
        """
        found = self.outputs.get(layer)
        if found is None:
            return 0.0
        parts = [(g * dy).double() for g, dy in zip(found, errors, strict=True)]
        if all(part.ndim > 0 and part.shape[0] == samples for part in parts):
            each = torch.stack([part.reshape(samples, -1).sum(dim=1) for part in parts]).sum(dim=0)
            return float(each.square().sum())
        return float(sum(float(part.sum()) for part in parts)) ** 2


def combination(outputs: Tensor, classes: int | None, generator: torch.Generator) -> Tensor:
    """A random u like `outputs` [N, K] with covariance F; `classes` is None for values."""
    signs = torch.randint(0, 2, outputs.shape, generator=generator).float() * 2 - 1
    signs = signs.to(outputs.device)
    if classes is None:
        return signs
    chances = outputs.detach().reshape(-1, classes).softmax(dim=1)
    rows = chances.sqrt() * signs.reshape(-1, classes)
    rows = rows - chances * (chances.sqrt() * signs.reshape(-1, classes)).sum(dim=1, keepdim=True)
    return rows.reshape(outputs.shape)


def pull_back(
    model: nn.Module, layers: Mapping[str, str], parameters: dict[str, nn.Parameter], inputs: Inputs,
    output: Output, read: Callable[[Tensor], Tensor], classes: int | None, draws: int,
    generator: torch.Generator,
) -> tuple[Tensor, list[Pulled]]:  # fmt: skip
    """Outputs [N, K] of one batch and `draws` random combinations pulled back.

    `read` gives logits or values of all outputs as the model gives them.
    `layers` maps the module that gives a layer's output to the layer.
    Does not change `model` or `inputs`. Raises `RuntimeError` where PyTorch cannot differentiate.
    """
    probes: list[tuple[str, Tensor]] = []
    norms: dict[str, float] = {}
    before = {name: parameter.grad for name, parameter in parameters.items()}
    frozen = [p for p in parameters.values() if not p.requires_grad]
    handles = [
        module.register_forward_hook(_probe(layers[path], probes))
        for path, module in model.named_modules()
        if path in layers
    ]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        for name, parameter in parameters.items():
            parameter.grad = None
            handles.append(
                parameter.register_post_accumulate_grad_hook(_spent(name, norms))  # type: ignore[no-untyped-call]
            )
        given = copied(inputs, model)
        with (
            torch.enable_grad(), state_kept(model), fixed_random_state(SEED),
            fused_attention_off(),
        ):  # fmt: skip
            found = read_output(call(model, given), output).float()
            found = read(found.reshape(found.shape[0] if found.ndim else 1, -1))
            leaves = [*(probe for _, probe in probes), *parameters.values()]
            pulled = []
            for draw in range(draws):
                norms.clear()
                total = (combination(found, classes, generator) * found).sum()
                total.backward(inputs=leaves, retain_graph=draw < draws - 1)  # type: ignore[no-untyped-call]
                weights = {name: norms.get(name, 0.0) for name in parameters}
                pulled.append(Pulled(_taken(probes), weights))
    finally:
        for handle in handles:
            handle.remove()
        for parameter in frozen:
            parameter.requires_grad_(False)
        for name, parameter in parameters.items():
            parameter.grad = before[name]
    return found.detach(), pulled


def _probe(name: str, probes: list[tuple[str, Tensor]]) -> Callable[..., Any]:
    """A hook that adds a leaf of zeros to each floating tensor that a module gives: its gradient
    is the tensor's, even where that is changed in place later.
    """

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        def probed(value: Tensor) -> Tensor:
            if not value.is_floating_point():
                return value
            probe = torch.zeros_like(value, requires_grad=True)
            probes.append((name, probe))
            return value + probe

        return map_tensors(output, probed)

    return hook


def _spent(name: str, norms: dict[str, float]) -> Callable[[Tensor], None]:
    """A hook that keeps the squared norm of a parameter's gradient and lets the gradient go, so
    that never more than a few are held.
    """

    def hook(parameter: Tensor) -> None:
        if parameter.grad is not None:
            norms[name] = squares(parameter.grad)
        parameter.grad = None

    return hook


def _taken(probes: list[tuple[str, Tensor]]) -> dict[str, list[Tensor]]:
    """The gradients of all probes by layer, which are theirs no more."""
    outputs: dict[str, list[Tensor]] = {}
    for layer, probe in probes:
        known = torch.zeros_like(probe) if probe.grad is None else probe.grad
        outputs.setdefault(layer, []).append(known.detach())
        probe.grad = None
    return outputs
