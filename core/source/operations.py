"""The tensor operations that matter for precision, recognised by the function called.

`torch.overrides.TorchFunctionMode` hands every call to a handler before it runs. `recognise`
says whether a call multiplies matrices, convolves or looks up, and where its operands stand, so
that the inventory can count it and the simulator can quantize its operands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.numerics.einsum import channel_axis, products
from core.source.recurrent import STEP_BY_STEP

OpKind = Literal["linear", "conv", "matmul", "embedding"]


@dataclass(frozen=True, slots=True)
class Operation:
    """How one function takes its operands.

    `activations` are the positions (and keyword names) of activation operands, `weight` and
    `bias` those of stored operands. `out_channel_axis` is the weight's output-channel axis; None
    where the weight has no axis that only the output keeps. `special` names a product whose kernel
    is not that of its `kind`, as the table of kernels does ("" = it is).
    """

    kind: OpKind
    activations: tuple[tuple[int, str], ...]
    weight: tuple[int, str] | None = None
    bias: tuple[int, str] | None = None
    out_channel_axis: int | None = 0
    special: str = ""


_PRODUCT = {"activations": ((0, "input"),), "weight": (1, "weight"), "bias": (2, "bias")}
LINEAR = Operation("linear", **_PRODUCT)  # type: ignore[arg-type]
CONV = Operation("conv", **_PRODUCT)  # type: ignore[arg-type]
CONV_TRANSPOSE = Operation("conv", out_channel_axis=1, special="conv_transpose", **_PRODUCT)  # type: ignore[arg-type]
MATMUL = Operation("matmul", ((0, "input"), (1, "other")))
BMM = Operation("matmul", ((0, "input"), (1, "mat2")))
ADDMM = Operation("matmul", ((1, "mat1"), (2, "mat2")), bias=(0, "input"))
BADDBMM = Operation("matmul", ((1, "batch1"), (2, "batch2")))
EMBEDDING = Operation("embedding", (), weight=(1, "weight"))
EMBEDDING_BAG = replace(EMBEDDING, out_channel_axis=None)  # what it gives are sums of rows

OPERATIONS: Mapping[Callable[..., Any], Operation] = {
    F.linear: LINEAR,
    torch.conv1d: CONV,
    torch.conv2d: CONV,
    torch.conv3d: CONV,
    torch.conv_transpose1d: CONV_TRANSPOSE,
    torch.conv_transpose2d: CONV_TRANSPOSE,
    torch.conv_transpose3d: CONV_TRANSPOSE,
    torch.matmul: MATMUL,
    Tensor.matmul: MATMUL,
    Tensor.__matmul__: MATMUL,
    torch.bmm: BMM,
    Tensor.bmm: BMM,
    torch.mm: BMM,
    Tensor.mm: BMM,
    torch.mv: Operation("matmul", ((0, "input"), (1, "vec"))),
    torch.addmm: ADDMM,
    Tensor.addmm: ADDMM,
    torch.baddbmm: BADDBMM,
    Tensor.baddbmm: BADDBMM,
    F.embedding: EMBEDDING,
    F.embedding_bag: EMBEDDING_BAG,
}
"""Functions whose operands a precision changes. Any other function runs in float."""


def label_of(func: Callable[..., Any]) -> str:
    """The name of a torch function without what marks its variants (add_, __radd__: add)."""
    name = str(getattr(func, "__name__", ""))
    if name.startswith("__") and name.endswith("__"):
        name = name.strip("_")
        plain = name[1:] if name[:1] in "ri" else name
        return plain if plain in ("add", "mul", "sub", "truediv", "pow") else name
    return name.strip("_")


class Stored:
    """Which tensors a model stores: its parameters and buffers, and views of them."""

    def __init__(self, model: nn.Module) -> None:
        named = (*model.parameters(), *model.buffers())
        self._held = {id(tensor): tensor for tensor in named}

    def add(self, *more: Tensor) -> None:
        """Count `more` tensors as stored."""
        self._held |= {id(tensor): tensor for tensor in more}

    def root(self, tensor: Tensor | None) -> Tensor | None:
        """The stored tensor that `tensor` is or is a view of; None for an activation."""
        if tensor is None:
            return None
        base = tensor if id(tensor) in self._held else tensor._base  # noqa: SLF001 (no other way)
        return None if base is None else self._held.get(id(base))


def has_complex(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call takes complex numbers, which no precision here changes."""
    return any(isinstance(x, Tensor) and x.is_complex() for x in (*args, *kwargs.values()))


def recognise(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], stored: Stored
) -> Operation | None:
    """What the call `func(*args, **kwargs)` is for a precision: `product_of` real numbers."""
    found = product_of(func, args, kwargs, stored)  # most calls are none: the rest is not looked at
    return None if found is None or has_complex(args, kwargs) else found


def product_of(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], stored: Stored
) -> Operation | None:
    """What the call `func(*args, **kwargs)` is, with its stored operand as the weight.

    None for a function whose operands no precision changes. A matrix product whose one operand
    the model stores is a linear operation; `torch.einsum` of two operands is a product.
    """
    if func is torch.einsum:
        if len(args) != 3 or not all(isinstance(x, Tensor) for x in args[1:]):
            return None
        operation = Operation("matmul", ((1, "left"), (2, "right")), special="einsum")
    else:
        found = OPERATIONS.get(func)
        if found is None or found.kind != "matmul":
            return found
        operation = found
    held = [stored.root(operand(slot, args, kwargs)) is not None for slot in operation.activations]
    bias = operation.bias
    if bias is not None and stored.root(operand(bias, args, kwargs)) is None:
        bias = None
    if held[0] == held[1]:
        return replace(operation, bias=None)
    weight, activation = operation.activations[held[1]], operation.activations[held[0]]
    axis: int | None = -1 if held[1] else -2
    if func is torch.einsum:
        operation = replace(operation, special="einsum_weight")
        axis = channel_axis(args[0], int(held[1]), args[1:])
    elif held[0]:
        given = operand(weight, args, kwargs)
        axis, bias = (-2 if given is not None and given.ndim > 1 else None), None
    return Operation("linear", (activation,), weight, bias, axis, operation.special)


def as_separate_operands(func: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, ...]:
    """`args` with the operands of `torch.einsum` one by one, however the caller grouped them."""
    if func is torch.einsum and len(args) == 2 and isinstance(args[1], tuple | list):
        return (args[0], *args[1])
    return args


def attention_by_products(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`scaled_dot_product_attention` as the two matrix products it consists of.

    Follows the reference code in PyTorch's documentation of that function, without dropout,
    which does nothing at inference.
    """
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.matmul(query, key.transpose(-2, -1)) * factor
    if is_causal:
        lower = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~lower, float("-inf"))
    elif attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        scores = scores + attn_mask
    return torch.matmul(torch.softmax(scores, dim=-1), value)


def _multi_head_attention(*args: Any, **kwargs: Any) -> Any:
    """The body of `F.multi_head_attention_forward`, past the check that hands it to a mode."""
    functional: Any = F  # the check is no public name of the module
    check = functional.has_torch_function
    functional.has_torch_function = lambda relevant: False
    try:
        return F.multi_head_attention_forward(*args, **kwargs)
    finally:
        functional.has_torch_function = check


COMPOSITES: Mapping[Callable[..., Any], Callable[..., Any]] = {
    F.scaled_dot_product_attention: attention_by_products,
    F.multi_head_attention_forward: _multi_head_attention,
    **STEP_BY_STEP,
}
"""Functions that reach a mode as one call although products are inside. A mode calls the value
under itself in place of the key, so that it sees them."""


def operand(slot: tuple[int, str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The operand in `slot`, wherever the caller put it; None where it was left out."""
    position, keyword = slot
    value = args[position] if position < len(args) else kwargs.get(keyword)
    return value if isinstance(value, Tensor) else None


def replace_operand(
    slot: tuple[int, str], value: Tensor | None, args: list[Any], kwargs: dict[str, Any]
) -> None:
    """Put `value` in `slot`. Mutates `args` or `kwargs`."""
    position, keyword = slot
    if position < len(args):
        args[position] = value
    elif keyword in kwargs:
        kwargs[keyword] = value


def multiply_accumulates(
    operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any], output: Tensor
) -> int:
    """Multiply-accumulates of one call: every output element sums over the shared axes."""
    if operation.kind == "embedding":
        return 0
    if args and isinstance(args[0], str):
        return products(args[0], args[1:])
    if operation.kind == "matmul":
        left = operand(operation.activations[0], args, kwargs)
        return output.numel() * (int(left.shape[-1]) if left is not None else 0)
    weight = operand(operation.weight or (1, "weight"), args, kwargs)
    if weight is None:
        return 0
    if operation.kind == "linear":
        sums_last = operation.out_channel_axis in (0, -2) or weight.ndim < 2
        return output.numel() * int(weight.shape[-1 if sums_last else -2])
    if operation.out_channel_axis == 1:  # transposed: every input element meets a whole kernel
        given = operand(operation.activations[0], args, kwargs)
        return 0 if given is None else given.numel() * weight.numel() // int(weight.shape[0])
    return output.numel() * weight.numel() // int(weight.shape[0])
