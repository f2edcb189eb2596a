"""Weights that a model computes from other tensors, stored in their place in a copy of it.

A parametrization (`torch.nn.utils.parametrize`, the older hooks of `weight_norm` and
`spectral_norm`, a mask of `torch.nn.utils.prune`) computes a weight at every call, and so does the
`forward` of a layer that standardizes or scales its own. A runtime folds the constant: it stores
the weight that comes of it and nothing else, so the layer has that weight here too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm
from torch.overrides import TorchFunctionMode

from core.errors import ModelError, QuantscapeError
from core.source.batches import SEED, Inputs, call, copied, fixed_random_state, state_kept, take
from core.source.operations import OPERATIONS, operand
from core.source.plain import copied_model
from core.source.roles import CONVOLUTIONS
from core.source.trees import tensors

FEW = 2
TOLERANCE = 1e-6
"""Of the outputs' size: how far a model without its parametrizations may be from itself."""
_WITH_WEIGHT: tuple[type[nn.Module], ...] = (nn.Linear, *CONVOLUTIONS)
_FAILED = (RuntimeError, TypeError, ValueError, AttributeError)
MADE_PLAIN = (
    "Weights of {layers} are computed from other tensors ({kinds}); the analysis is of a copy of "
    "the model that stores the weights themselves, as a runtime does."
)

Made = Mapping[str, tuple[Tensor, Tensor | None]]
"""Module path -> the weight and bias that its `forward` computes."""


def with_own_weights(model: nn.Module, inputs: Inputs) -> tuple[nn.Module, list[str]]:
    """`model`, in evaluation mode, with every computed weight stored in its place, and what a
    person should know of it: a copy where there is one, else `model` itself.

    The copy is compared with `model` on the first of `inputs`. Weights that a subclass of a linear
    layer or convolution computes in its own `forward` are stored where outputs stay the same.
    Raises `ModelError` where they do not without parametrizations.
    """
    found = {path: kinds for path, m in model.named_modules() if (kinds := _computed(m))}
    made = _made_in_forward(model, take(inputs, 0, 1))
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
    for path, (weight, bias) in made.items():
        module = own.get_submodule(path)
        module.__class__ = next(kind for kind in type(module).__mro__ if kind in _WITH_WEIGHT)
        for name in list(module._parameters):  # noqa: SLF001 (what the weight was computed from)
            del module._parameters[name]  # noqa: SLF001
        module.register_parameter("weight", nn.Parameter(weight))
        module.register_parameter("bias", None if bias is None else nn.Parameter(bias))
    return own


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


class _Weights(TorchFunctionMode):
    """Weight and bias of each product that one of `modules` runs, where it stores another."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self._modules = modules
        self._running: list[str] = []
        self.found: dict[str, tuple[Tensor, Tensor | None]] = {}
        self.calls: Counter[str] = Counter()

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Hooks that say which module is running, for the length of the block."""
        handles: list[Any] = []
        for path, module in self._modules.items():

            def enter(*_: Any, path: str = path) -> None:
                self._running.append(path)

            def leave(*_: Any) -> None:
                self._running.pop()

            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave))
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        operation = OPERATIONS.get(func) if self._running else None
        if operation is not None and operation.weight and operation.bias:
            path = self._running[-1]
            weight = operand(operation.weight, args, kwargs)
            own = self._modules[path].weight
            self.calls[path] += 1
            if weight is not None and weight is not own and weight.shape == own.shape:
                bias = operand(operation.bias, args, kwargs)
                bias = None if bias is None else bias.detach().clone()
                self.found[path] = weight.detach().clone(), bias
        return func(*args, **kwargs)


def _made_in_forward(model: nn.Module, one: Inputs) -> Made:
    """Weight and bias that subclasses of linear layers and convolutions compute in `forward`, by
    path, as they are for the sample `one`; empty where the model fails on it.
    """
    theirs = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, _WITH_WEIGHT) and not list(module.children())
        and not parametrize.is_parametrized(module) and not _hooks(module)
        and not type(module).__module__.startswith("torch.")
    }  # fmt: skip
    if not theirs:
        return {}
    watch = _Weights(theirs)
    try:
        with (
            torch.no_grad(), fixed_random_state(SEED), state_kept(model), watch.installed(),
        ):  # fmt: skip
            call(model, copied(one, model))
    except Exception:  # noqa: BLE001 (a person's own code: it will say so when it is run)
        return {}
    return {path: pair for path, pair in watch.found.items() if watch.calls[path] == 1}


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
