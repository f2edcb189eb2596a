"""The plain float module in what a person brings: wrappers taken off, and what has no layers in
sight or is quantized already refused.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from core.errors import ModelError
from core.source.trees import tensors

WRAPPERS = {
    "OptimizedModule": ("_orig_mod", "torch.compile"),
    "DataParallel": ("module", "DataParallel"),
    "DistributedDataParallel": ("module", "DistributedDataParallel"),
}
"""Class of PyTorch's -> the attribute that holds the module itself, and what people call it."""
FLOAT_ALL_THE_SAME = ("FloatFunctional", "FXFloatFunctional")
"""Modules among PyTorch's quantized ones that compute in float."""

UNWRAPPED = "The model came wrapped by {kinds}; figures and names are those of the module inside."
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
    kinds |= {"torch.compile" for module in given.modules() if _is_compiled(module)}
    model = _unwrapped(given)
    for path, module in model.named_modules():
        _refuse(f"Module {path!r}" if path else "The model", module)
    for name, parameter in model.named_parameters():
        how = _quantized(parameter)
        if how:
            raise ModelError(f"Weight {name!r} is quantized already ({how}).", BRING_FLOAT)
    return model, [UNWRAPPED.format(kinds=" and ".join(sorted(kinds)))] if kinds else []


def without_wrappers(given: nn.Module) -> dict[str, str]:
    """Path of every module of `given` -> its path in what `given` wraps."""
    found = {}
    for path, _ in given.named_modules():
        kept, around = [], given
        for part in path.split(".") if path else ():
            kept += [] if part == _wrapper(around)[0] else [part]
            around = around.get_submodule(part)
        found[path] = ".".join(kept)
    return found


def _quantized(tensor: Any) -> str:
    """How `tensor` holds integers in the place of floats; "" where it does not."""
    if is_traceable_wrapper_subclass(tensor):
        return type(tensor).__name__
    is_packed = tensor.dtype in (torch.int8, torch.uint8)
    return str(tensor.dtype).removeprefix("torch.") if is_packed else ""


def _is_compiled(module: nn.Module) -> bool:
    """Whether `module.compile()` was called; a copy runs as it is written."""
    return getattr(module, "_compiled_call_impl", None) is not None


def _wrapper(module: nn.Module) -> tuple[str, str]:
    kind = type(module)
    return WRAPPERS.get(kind.__name__, ("", "")) if kind.__module__[:6] == "torch." else ("", "")


def _unwrapped(given: nn.Module) -> nn.Module:
    """What `given` wraps; a copy where wrappers are inside. Their own copies are what they wrap."""
    while _wrapper(given)[0]:
        given = getattr(given, _wrapper(given)[0])
    memo: dict[int, Any] = {}
    in_place = any(_is_compiled(module) for module in given.modules())
    for module in reversed(list(given.modules())):  # the innermost first
        inside = _wrapper(module)[0]
        if inside:
            memo[id(module)] = copied_model(getattr(module, inside), memo)
    return copied_model(given, memo) if memo or in_place else given


def copied_model(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """A copy of `model`, with what `memo` holds in the place of the objects of these ids. Adds
    what it copies to `memo`, so that parts copied one by one go on sharing what they share.

    What hooks have computed is copied as it is: `copy.deepcopy` takes no tensor with a gradient.
    """
    memo = {} if memo is None else memo
    for module in model.modules():
        for value in tensors(vars(module)):
            if not value.is_leaf and id(value) not in memo:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(model, memo)


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
