"""Weights that a model computes from other tensors, stored in their place in a copy of it.

A parametrization (`torch.nn.utils.parametrize`, the older hooks of `weight_norm` and
`spectral_norm`, a mask of `torch.nn.utils.prune`) computes a weight at every call, and so does the
`forward` of a layer that standardizes or scales its own. A runtime folds the constant: it stores
the weight that comes of it and nothing else, so the layer has that weight here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm
from torch.overrides import TorchFunctionMode

from core.errors import ModelError, QuantscapeError
from core.source.batches import (
    SEED,
    Inputs,
    call,
    copied,
    count,
    fixed_random_state,
    state_kept,
    take,
)
from core.source.operations import OPERATIONS, Stored, operand
from core.source.plain import copied_model
from core.source.trees import tensors

FEW = 2
TOLERANCE = 1e-6
"""Of the outputs' size: how far a model without its parametrizations may be from itself."""
_CONVOLUTIONS = {torch.conv1d: nn.Conv1d, torch.conv2d: nn.Conv2d, torch.conv3d: nn.Conv3d}
_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_FAILED = (RuntimeError, TypeError, ValueError, AttributeError)
MADE_PLAIN = (
    "Weights of {layers} are computed from other tensors ({kinds}); the analysis is of a copy of "
    "the model that stores the weights themselves, as a runtime does."
)

Made = Mapping[str, nn.Module]
"""Module path -> the plain layer that does what it does."""


def with_own_weights(model: nn.Module, inputs: Inputs) -> tuple[nn.Module, list[str]]:
    """`model`, in evaluation mode, with every computed weight stored in its place, and what a
    person should know of it: a copy where there is one, else `model` itself.

    The copy is compared with `model` on the first of `inputs`. A module
    whose `forward` is a product with a weight that it computes becomes that plain layer, where
    outputs stay the same.
    Raises `ModelError` where they do not without parametrizations.
    """
    found = {path: kinds for path, m in model.named_modules() if (kinds := _computed(m))}
    made = _made_in_forward(model, inputs)
    if made:
        try:
            own = _stored(model, found, made)
            if _agree(model, own, take(inputs, 0, FEW)):
                by = {path: [type(model.get_submodule(path)).__name__] for path in made}
                return own, [_said({**found, **by})]
        except _FAILED:
            pass  # their forward does more: the layer is left as it is
    if not found:
        return model, []
    try:
        own = _stored(model, found, {})
        same = _agree(model, own, take(inputs, 0, FEW))
    except _FAILED as error:
        raise _cannot(found, f"{type(error).__name__}: {error}") from error
    if not same:
        raise _cannot(found, "the model then gives other outputs")
    return own, [_said(found)]


def _said(found: Mapping[str, list[str]]) -> str:
    kinds = sorted({kind for of in found.values() for kind in of})
    return MADE_PLAIN.format(layers=_names(found), kinds=", ".join(kinds))


def _names(paths: Iterable[str]) -> str:
    return ", ".join(repr(path) if path else "the model itself" for path in paths)


def _computed(module: nn.Module) -> list[str]:
    """What computes weights of `module` from other tensors, in words; none: an empty list."""
    found: list[str] = []
    if parametrize.is_parametrized(module):
        held: Any = module.parametrizations
        found = [type(step).__name__.strip("_") for steps in held.values() for step in steps]
    return found + [type(hook).__name__ for hook in _hooks(module)]


def _hooks(module: nn.Module) -> list[Any]:
    kinds = (WeightNorm, SpectralNorm, prune.BasePruningMethod)
    hooks = module._forward_pre_hooks.values()  # noqa: SLF001 (no public way to them)
    return [hook for hook in hooks if isinstance(hook, kinds)]


def _stored(model: nn.Module, found: Iterable[str], made: Made) -> nn.Module:
    """A copy of `model` that stores the computed weights of the modules in `found` and `made`."""
    own = copied_model(model)
    for path in found:
        _store(own.get_submodule(path))
    replaced = {id(own.get_submodule(path)): layer for path, layer in made.items()}
    for module in list(own.modules()):
        for name, child in module._modules.items():  # noqa: SLF001 (a shared one has several names)
            if id(child) in replaced:
                module._modules[name] = replaced[id(child)]  # noqa: SLF001
    return replaced.get(id(own), own)


def _store(module: nn.Module) -> None:
    """Put the computed weights of `module` in the place of what computes them, before those that
    are stored. Changes it.
    """
    held = module._parameters  # noqa: SLF001 (their order)
    others = list(held)
    for hook in _hooks(module):
        if isinstance(hook, prune.BasePruningMethod):
            unmask: Any = prune.remove
            unmask(module, hook._tensor_name)  # noqa: SLF001
            continue
        of_weight_norm = isinstance(hook, WeightNorm)
        remove: Any = remove_weight_norm if of_weight_norm else remove_spectral_norm
        remove(module, hook.name)
    if parametrize.is_parametrized(module):
        # PyTorch's own function takes the weight off the class, which the original has too.
        computed: Any = module.parametrizations
        values = {name: getattr(module, name).detach().clone() for name in computed}
        del module.parametrizations
        module.__class__ = type(module).__bases__[0]
        for name, value in values.items():
            if any(True for _ in computed[name].parameters(recurse=False)):
                module.register_parameter(name, nn.Parameter(value))
            else:
                module.register_buffer(name, value)
    for name in others:
        if name in held:
            held[name] = held.pop(name)


class _Products(TorchFunctionMode):
    """Plain layers that do what modules of a model do: those which run one product, of what they
    are given, with a weight that is computed from others, and give its result.

    `layers` has them by path.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.layers: dict[str, nn.Module] = {}
        self._stored = Stored(model)
        self._theirs = {
            path: module
            for path, module in model.named_modules()
            if not list(module.children()) and list(module.parameters(recurse=False))
            and not type(module).__module__.startswith("torch.")
            and not parametrize.is_parametrized(module) and not _hooks(module)
        }  # fmt: skip
        self._running: list[tuple[Any, list[tuple[nn.Module | None, Tensor]]]] = []

    def of(self, one: Inputs, model: nn.Module, seed: int) -> dict[str, nn.Module]:
        """Run `model` on `one` and return the layers; none where it fails."""
        if not self._theirs:
            return {}
        handles: list[Any] = []
        for path, module in self._theirs.items():
            handles.append(module.register_forward_pre_hook(self._enter))
            handles.append(module.register_forward_hook(self._leave(path)))
        try:
            with torch.no_grad(), fixed_random_state(seed), state_kept(model), self:
                call(model, copied(one, model))
        except Exception:  # noqa: BLE001 (a person's own code: it will say so when it is run)
            return {}
        finally:
            for handle in handles:
                handle.remove()
        return self.layers

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._running.append((args[0] if len(args) == 1 else None, []))

    def _leave(self, path: str) -> Any:
        calls = 0

        def hook(module: nn.Module, args: Any, output: Any) -> None:
            nonlocal calls
            calls += 1
            _, products = self._running.pop()
            self.layers.pop(path, None)
            if calls == len(products) == 1 and products[0][1] is output and products[0][0]:
                self.layers[path] = products[0][0]

        return hook

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        operation = OPERATIONS.get(func) if self._running else None
        if operation is not None:
            given, products = self._running[-1]
            weight = operand(operation.weight, args, kwargs) if operation.weight else None
            is_computed = weight is not None and self._stored.root(weight) is None
            first = operand((0, "input"), args, kwargs)
            layer = _layer(func, args, kwargs) if is_computed and first is given else None
            products.append((layer, output))
        return output


def _layer(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> nn.Module | None:
    """A layer that does what the call `func(*args, **kwargs)` does; None for another function."""
    given = dict(zip(_ARGUMENTS, args, strict=False)) | dict(kwargs)
    weight, bias = given["weight"].detach().clone(), given.get("bias")
    layer: nn.Module
    if func is F.linear:
        layer = nn.Linear(1, 1)
    elif func in _CONVOLUTIONS:
        groups = given.get("groups", 1)
        how = {name: given[name] for name in _ARGUMENTS[3:6] if name in given}
        kernel: Any = tuple(weight.shape[2:])
        layer = _CONVOLUTIONS[func](
            weight.shape[1] * groups, len(weight), kernel, groups=groups, **how
        )
    else:
        return None
    layer.register_parameter("weight", nn.Parameter(weight))
    own = None if bias is None else nn.Parameter(bias.detach().clone())
    layer.register_parameter("bias", own)
    return layer.eval()


def _made_in_forward(model: nn.Module, inputs: Inputs) -> dict[str, nn.Module]:
    """Path -> the plain layer that a module is whose `forward` computes its weight; not where the
    weight depends on what the module is given, or on chance.
    """
    last = max(count(inputs) - 1, 0)
    first = _Products(model).of(take(inputs, 0, 1), model, SEED)
    again = _Products(model).of(take(inputs, last, last + 1), model, SEED + 1) if first else {}
    return {path: layer for path, layer in first.items()
            if path in again and _same(layer, again[path])}  # fmt: skip


def _same(a: nn.Module, b: nn.Module) -> bool:
    """Whether two layers hold the same values."""
    return repr(a) == repr(b) and all(
        torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True)
    )


def _agree(model: nn.Module, own: nn.Module, batch: Inputs) -> bool:
    """Whether both give the same for `batch`, up to `TOLERANCE`; where the model itself fails,
    it will say so when it is run.
    """

    def outputs(of: nn.Module) -> list[Tensor]:
        with torch.no_grad(), fixed_random_state(SEED), state_kept(of):
            return [t.double() for t in tensors(call(of, copied(batch, of)))]

    try:
        before = outputs(model)
    except Exception:  # noqa: BLE001 (a person's own code)
        return True
    after = outputs(own)
    return len(before) == len(after) and all(
        a.shape == b.shape
        and bool((a - b).abs().max() <= TOLERANCE * a.abs().max().clamp(min=1e-30))
        for a, b in zip(before, after, strict=True)
        if a.numel()
    )


def _cannot(paths: Iterable[str], why: str) -> QuantscapeError:
    return ModelError(
        f"Weights of {_names(paths)} are computed from other tensors, and cannot be stored in a copy of "
        f"the model: {why}.",
        "Remove what computes them, for instance with "
        "torch.nn.utils.parametrize.remove_parametrizations, and bring the model after that.",
    )
