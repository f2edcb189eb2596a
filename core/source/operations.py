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
