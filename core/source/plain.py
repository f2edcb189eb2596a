"""The plain float module in what a person brings: wrappers taken off, weights that are computed
from others made the weights of their layer, and what cannot be measured refused.

A parametrization (`torch.nn.utils.parametrize`, the older hooks of `weight_norm` and
`spectral_norm`, a mask of `torch.nn.utils.prune`) computes a weight from other tensors. A runtime
stores the weight that comes of it and none of those, so the layer has that weight here too.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from core.errors import ModelError, QuantscapeError
from core.source.batches import SEED, Inputs, call, copied, fixed_random_state, state_kept, take
from core.source.trees import tensors

WRAPPERS = {
    "OptimizedModule": ("_orig_mod", "torch.compile"),
    "DataParallel": ("module", "DataParallel"),
    "DistributedDataParallel": ("module", "DistributedDataParallel"),
}
"""Class of PyTorch's -> the attribute that holds the module itself, and what people call it."""
FLOAT_ALL_THE_SAME = ("FloatFunctional", "FXFloatFunctional")
"""Modules among PyTorch's quantized ones that compute in float."""
FEW = 2
TOLERANCE = 1e-6
"""Of the outputs' size: how far a model without its parametrizations may be from itself."""

UNWRAPPED = "The model came wrapped by {kinds}; figures and names are those of the module inside."
MADE_PLAIN = (
    "Weights of {layers} are computed from other tensors ({kinds}); the analysis is of a copy of "
    "the model that stores the weights themselves, as a runtime does."
)
BRING_FLOAT = (
    "Bring the float model that it was made from: precisions are chosen here, and every one is "
    "measured against FP32."
)
BRING_MODULE = "Bring the nn.Module that was exported."


def plain(given: Any) -> tuple[nn.Module, list[str]]:
    """The module that `given` is or wraps, its layers in sight and its weights float, and what a
    person should know of how it was taken apart.

    Does not change `given`. Raises `ModelError` naming the module that cannot be measured.
    """
    if isinstance(given, ExportedProgram):
        raise ModelError(
            "The source's 'model' is an ExportedProgram, which has operations and no layers.",
            BRING_MODULE,
        )
    if not isinstance(given, nn.Module):
        raise ModelError(
            f"The source's 'model' is a {type(given).__name__}, not an nn.Module.",
            "Return the module itself.",
        )
    kinds = {said for module in given.modules() if (said := _wrapper(module)[1])}
    model = _unwrapped(given)
    for path, module in model.named_modules():
        _refuse(f"Module {path!r}" if path else "The model", module)
    for name, parameter in model.named_parameters():
        how = _quantized(parameter)
        if how:
            raise ModelError(f"Weight {name!r} is quantized already ({how}).", BRING_FLOAT)
    return model, [UNWRAPPED.format(kinds=" and ".join(sorted(kinds)))] if kinds else []


def with_own_weights(model: nn.Module, inputs: Inputs) -> tuple[nn.Module, list[str]]:
    """`model`, in evaluation mode, with every computed weight stored in its place, and what a
    person should know of it: a copy where there is one, else `model` itself.

    The copy is compared with `model` on the first of `inputs`. Raises `ModelError` where they
    differ.
    """
    found = {path: kinds for path, m in model.named_modules() if (kinds := _computed(m))}
    if not found:
        return model, []
    layers = ", ".join(repr(path) if path else "the model itself" for path in found)
    try:
        own = copy.deepcopy(model, _results(model))
        for path in found:
            _store(own.get_submodule(path))
        same = _agree(model, own, take(inputs, 0, FEW))
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise _cannot(layers, f"{type(error).__name__}: {error}") from error
    if not same:
        raise _cannot(layers, "the model then gives other outputs")
    said = ", ".join(sorted({kind for of in found.values() for kind in of}))
    return own, [MADE_PLAIN.format(layers=layers, kinds=said)]


def _quantized(tensor: Any) -> str:
    """How `tensor` holds integers in the place of floats; "" where it does not."""
    if is_traceable_wrapper_subclass(tensor):
        return type(tensor).__name__
    is_packed = tensor.dtype in (torch.int8, torch.uint8)
    return str(tensor.dtype).removeprefix("torch.") if is_packed else ""


def _wrapper(module: nn.Module) -> tuple[str, str]:
    kind = type(module)
    return WRAPPERS.get(kind.__name__, ("", "")) if kind.__module__[:6] == "torch." else ("", "")


def _unwrapped(given: nn.Module) -> nn.Module:
    """What `given` wraps; a copy where wrappers are inside. Their own copies are what they wrap."""
    while _wrapper(given)[0]:
        given = getattr(given, _wrapper(given)[0])
    memo: dict[int, Any] = {}
    for module in reversed(list(given.modules())):  # the innermost first
        inside = _wrapper(module)[0]
        if inside:
            memo[id(module)] = copy.deepcopy(getattr(module, inside), memo)
    return copy.deepcopy(given, memo) if memo else given


def _refuse(what: str, module: nn.Module) -> None:
    """Raise `ModelError` where the layers of `module` cannot be seen or are quantized already."""
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(
            f"{what} is a TorchScript module, whose layers cannot be seen.",
            "Return the nn.Module that it was scripted or traced from.",
        )
    graph = getattr(module, "graph", None)
    if isinstance(graph, fx.Graph) and any(
        isinstance(node.target, torch._ops.OpOverload)  # noqa: SLF001 (the type has no other name)
        for node in graph.nodes
    ):
        raise ModelError(
            f"{what} was made by torch.export: it has operations and no layers.", BRING_MODULE
        )
    kind = type(module)
    packed = any(isinstance(value, torch.ScriptObject) for value in vars(module).values())
    packed = packed or "qweight" in module._buffers  # noqa: SLF001 (as GPTQ and AWQ call it)
    home = kind.__module__.split(".")
    own = "quantized" in home and home[0] == "torch" and kind.__name__ not in FLOAT_ALL_THE_SAME
    if packed or own:
        raise ModelError(
            f"{what} is quantized already ({kind.__module__}.{kind.__name__}).", BRING_FLOAT
        )
    if isinstance(module, torch.ao.quantization.FakeQuantizeBase):
        raise ModelError(f"{what} rounds to integers already ({kind.__name__}).", BRING_FLOAT)


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


def _results(model: nn.Module) -> dict[int, Any]:
    """Copies of what hooks have computed: `copy.deepcopy` takes none that carry a gradient."""
    return {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in tensors(vars(module))
        if not value.is_leaf
    }


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


def _cannot(layers: str, why: str) -> QuantscapeError:
    return ModelError(
        f"Weights of {layers} are computed from other tensors, and cannot be stored in a copy of "
        f"the model: {why}.",
        "Remove what computes them, for instance with "
        "torch.nn.utils.parametrize.remove_parametrizations, and bring the model after that.",
    )
