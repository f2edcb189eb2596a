"""The tensor operations that matter for precision, recognised by the function called.

`torch.overrides.TorchFunctionMode` hands every call to a handler before it runs. `OPERATIONS`
says which functions multiply matrices, convolve, look up or normalise, and where their operands
stand, so that the inventory can count them and the simulator can quantize their operands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

OpKind = Literal["linear", "conv", "matmul", "embedding"]


@dataclass(frozen=True, slots=True)
class Operation:
    """How one function takes its operands.

    `activations` are the positions (and keyword names) of activation operands, `weight` and
    `bias` those of stored operands. `out_channel_axis` is the weight's output-channel axis.
    """

    kind: OpKind
    activations: tuple[tuple[int, str], ...]
    weight: tuple[int, str] | None = None
    bias: tuple[int, str] | None = None
    out_channel_axis: int = 0


_PRODUCT = {"activations": ((0, "input"),), "weight": (1, "weight"), "bias": (2, "bias")}
LINEAR = Operation("linear", **_PRODUCT)  # type: ignore[arg-type]
CONV = Operation("conv", **_PRODUCT)  # type: ignore[arg-type]
CONV_TRANSPOSE = Operation("conv", out_channel_axis=1, **_PRODUCT)  # type: ignore[arg-type]
MATMUL = Operation("matmul", ((0, "input"), (1, "other")))
BMM = Operation("matmul", ((0, "input"), (1, "mat2")))
EMBEDDING = Operation("embedding", (), weight=(1, "weight"))

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
    F.embedding: EMBEDDING,
}
"""Functions whose operands a precision changes. Any other function runs in float."""


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
    if operation.kind == "matmul":
        left = operand(operation.activations[0], args, kwargs)
        return output.numel() * (int(left.shape[-1]) if left is not None else 0)
    weight = operand(operation.weight or (1, "weight"), args, kwargs)
    if weight is None:
        return 0
    if operation.out_channel_axis == 1:  # transposed: every input element meets a whole kernel
        given = operand(operation.activations[0], args, kwargs)
        return 0 if given is None else given.numel() * weight.numel() // int(weight.shape[0])
    return output.numel() * weight.numel() // int(weight.shape[0])
