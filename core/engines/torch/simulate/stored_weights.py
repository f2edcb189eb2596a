"""Stored tensors in another precision, and values that are changed where they lie."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from core.numerics.groups import grouped_rows, round_grouped
from core.numerics.precision import Precision
from core.numerics.rounding import (
    round_bias,
    round_float,
    round_table,
    round_weight,
    scales_of,
)
from core.numerics.scheme import Scheme
from core.source.operations import Operation, Stored, operand, replace_operand
from core.source.trees import map_tensors, tensors


class StoredTensors:
    """A model's stored tensors as precisions store them, each rounded once while there is room."""

    def __init__(self, stored: Stored, scheme: Scheme, tables: Iterable[Tensor] = ()) -> None:
        """`tables` are those whose rows formats by groups pack."""
        self._stored, self._scheme = stored, scheme
        self._tables = {id(one) for one in tables}
        self._rounded: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}
        self._room: float = math.inf

    def hold(self, most_bytes: int) -> None:
        """Hold at most so many bytes of rounded tensors from now on, and none from before.

        What finds no room is rounded each time it is met. Nothing makes room for another: passes
        meet all tensors in turn, so that each would go just before it is met again.
        """
        self._rounded.clear()
        self._room = most_bytes

    def _keep(self, key: tuple[object, ...], made: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        size = made[0].numel() * made[0].element_size()
        if size <= self._room:
            self._room -= size
            self._rounded[key] = made
        return made

    def cast(self, value: Tensor, precision: Precision, *, always: bool) -> Tensor:
        """A parameter in a float format, and with `always` any other tensor (a buffer that is
        the weight of a product); everything else as it is.
        """
        if value.dtype != torch.float32 or not (always or isinstance(value, nn.Parameter)):
            return value
        if self._stored.root(value) is not value:
            return round_float(value, precision)
        key = (id(value), precision.name)
        found = self._rounded.get(key)
        return (found or self._keep(key, (round_float(value, precision), value)))[0]

    def integers(
        self, weight: Tensor, operation: Operation, precision: Precision, *, exact: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The weight of `operation` on its integer grid, with its scales (channels,); with
        `exact` the weight as it is, with the scales that it would have.
        """
        axis = operation.out_channel_axis
        if exact and operation.kind == "embedding":
            return weight.detach(), torch.ones(1)
        if exact:
            axis = axis if self._scheme.weights_per_channel else None
            return weight.detach(), scales_of(weight, precision.weights, axis)
        # Tied weights are a table to an embedding and a matrix to a product.
        key = (id(weight), precision.name, operation.kind, axis)
        if key in self._rounded:
            return self._rounded[key]
        if operation.kind == "embedding":
            rounded = self._table(weight, precision), torch.ones(1)
        else:
            axis = axis if self._scheme.weights_per_channel else None
            scales = scales_of(weight, precision.weights, axis)
            rounded = round_weight(weight, precision, axis), scales
        if self._stored.root(weight) is weight:  # the id of anything else may be taken again
            self._keep(key, rounded)
        return rounded

    def place_groups(
        self, operation: Operation, precision: Precision, args: list[Any], kwargs: dict[str, Any]
    ) -> None:
        """Put the weight of `operation` on its grids by groups if it is a matrix of a plain product, or
        a table that has such. Mutates `args` and `kwargs`.
        """
        slot, axis = operation.weight, operation.out_channel_axis
        weight = operand(slot, args, kwargs) if slot else None
        if not slot or weight is None or axis is None:
            return
        if operation.kind == "embedding":
            if id(weight) in self._tables:
                replace_operand(slot, self._rows(weight, precision), args, kwargs)
            return
        if not is_matrix(operation, args, kwargs):
            return
        key = (id(weight), precision.weights, axis)
        found = self._rounded.get(key)
        if found is None:
            found = round_grouped(weight, precision.weights, 1 - axis % 2), weight
            if self._stored.root(weight) is weight:
                self._keep(key, found)
        replace_operand(slot, found[0], args, kwargs)

    def _rows(self, table: Tensor, precision: Precision) -> Tensor:
        key = (id(table), precision.weights, "rows")
        found = self._rounded.get(key)
        if found is None:
            found = self._keep(key, (grouped_rows(table, precision.weights).restored(), table))
        return found[0]

    def _table(self, table: Tensor, precision: Precision) -> Tensor:
        if self._scheme.table == "float":
            return table.detach()
        if self._scheme.table == "rows":
            return round_weight(table, precision, 0)
        return round_table(table, precision)

    def place(
        self, operation: Operation, precision: Precision, scale: float | None,
        args: list[Any], kwargs: dict[str, Any], *, exact: bool = False,
    ) -> None:  # fmt: skip
        """Put the weight of `operation` on its grid, and its bias where the input has a `scale`.

        With `exact` the weight stays as it is. Mutates `args` and `kwargs`.
        """
        weight = operand(operation.weight, args, kwargs) if operation.weight else None
        if not operation.weight or weight is None:
            return
        rounded, scales = self.integers(weight, operation, precision, exact=exact)
        replace_operand(operation.weight, rounded, args, kwargs)
        if self._scheme.bias != "int32":
            return
        bias = operand(operation.bias, args, kwargs) if operation.bias else None
        if not operation.bias or bias is None or scale is None:
            return
        key = (id(bias), id(weight), precision.name, scale, exact)
        found = self._rounded.get(key)
        if found is None:
            if operation.kind == "conv" and len(bias) > len(scales):  # transposed, in groups
                scales = scales.repeat(len(bias) // len(scales))
            if len(scales) != len(bias):
                return
            found = round_bias(bias, scale, scales), bias
            if self._stored.root(bias) is bias and self._stored.root(weight) is weight:
                self._keep(key, found)
        replace_operand(operation.bias, found[0], args, kwargs)


def is_matrix(operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether `operation` is a plain product with a stored matrix."""
    weight = operand(operation.weight, args, kwargs) if operation.weight else None
    plain = operation.kind == "linear" and not operation.special
    if not plain or weight is None or operation.out_channel_axis is None:
        return False
    return weight.ndim == 2 and weight.dtype == torch.float32


def cast(value: Tensor, precision: Precision) -> Tensor:
    """A float32 tensor in a float format; any other as it is."""
    return round_float(value, precision) if value.dtype == torch.float32 else value


def settled(output: Any, given: Any, precision: Precision) -> Any:
    """What a function returned for the arguments `given`, in a float format.

    An argument that the function changed in place is rounded in place, and what holds rounded
    values already stays as it is, so that the model's own sharing of memory goes on and a
    function that hands back what it was given changes nothing.
    """
    arguments = tensors(given)
    memory = {tensor.untyped_storage().data_ptr() for tensor in arguments}

    def settle(tensor: Tensor) -> Tensor:
        rounded = cast(tensor, precision)
        if rounded is tensor or tensor.untyped_storage().data_ptr() not in memory:
            return rounded
        if torch.equal(rounded.view(torch.int32), tensor.view(torch.int32)):
            return tensor
        is_argument = any(tensor is argument for argument in arguments)
        return tensor.copy_(rounded) if is_argument else rounded

    return map_tensors(output, settle)


def give_back(given: tuple[Any, ...], copies: tuple[Any, ...]) -> None:
    """What a module changed in place in the copies it was given reaches the originals."""
    for original, copy in zip(given, copies, strict=False):
        if isinstance(original, Tensor) and isinstance(copy, Tensor) and original is not copy:
            changed = copy._version > 0  # noqa: SLF001 (PyTorch's own count of changes in place)
            if changed:
                original.copy_(copy)
