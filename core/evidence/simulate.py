"""Running a model with chosen layers in another precision, by rounding what they touch.

Integers: operands of products and convolutions are rounded to the scheme's grids and the
product is taken in float32, which equals the integer kernel up to the order of summation
(Jacob et al. 2018, arXiv:1712.05877). Half precision: weights and every result of a layer are
rounded to the format while sums stay in float32, as tensor cores do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from core.errors import ModelError
from core.evidence.rounding import (
    Range,
    affine_grid,
    round_activation,
    round_bias,
    round_float,
    round_table,
    round_weight,
    weight_scales,
)
from core.evidence.scheme import Scheme
from core.layers import LayerTable
from core.precision import Precision
from core.source.operations import COMPOSITES, OPERATIONS, Operation, operand, replace_operand
from core.source.ownership import ModuleStack, first_tensor

Site = tuple[str, int, int]
"""(layer, operation number within the layer's forward pass, operand); operand -1 = output."""

Assignment = Mapping[str, Precision]
"""Layers that leave the reference precision. A layer that is not named stays as trained."""

OUTPUT = -1
MODULE_OUTPUT = (-1, OUTPUT)


class Simulator(TorchFunctionMode):
    """A model whose layers can be put into any precision, one assignment at a time.

    Does not change the model. `calibrate` must run before an integer assignment.
    """

    def __init__(
        self, model: nn.Module, layers: LayerTable, owner: Mapping[str, str | None], scheme: Scheme
    ) -> None:
        super().__init__()
        self.scheme = scheme
        self.ranges: dict[Site, Range] = {}
        self._rounded_modules = {
            layer.name
            for layer in layers
            if layer.state == "rounds output" or layer.role == "pooling"
        }
        self._silent = {layer.name for layer in layers if layer.state == "nothing"}
        self._stack = ModuleStack(model, self._entered, self._left)
        self.model, self.owner = model, owner
        self.varied = tuple(layer.name for layer in layers if layer.computes_at_inference)
        self._assignment: Assignment = {}
        self._recording = False
        self._counts: dict[str, int] = {}
        self._weights: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}

    # ---- public

    def calibrate(self, inputs: Tensor, batch_size: int = 64) -> None:
        """Record the min-max range of every activation that a scheme may round."""
        self.ranges.clear()
        self._recording = True
        try:
            self._forward({}, inputs, batch_size)
        finally:
            self._recording = False

    def run(
        self, assignment: Assignment, inputs: Tensor, batch_size: int = 100
    ) -> NDArray[np.float32]:
        """Outputs [N, K] of the model with `assignment` applied to `inputs` [N, ...]."""
        active = {
            name: precision
            for name, precision in assignment.items()
            if precision.float_dtype != "float32" and name not in self._silent
        }
        return self._forward(active, inputs, batch_size)

    def counts(self, func: Callable[..., Any]) -> bool:
        """Whether `func` is an operation, which is numbered within its layer."""
        return func in OPERATIONS

    def answer(self, batch: Tensor) -> Tensor:
        """The model's output for one batch, in whatever state this simulator is."""
        result = first_tensor(self.model(batch))
        if result is None:
            raise ModelError(
                "The model returned no tensor.",
                "Return logits as a tensor, or as the first tensor of a tuple or dict.",
            )
        return result

    def run_module(
        self,
        assignment: Assignment,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        counts: Mapping[str, int],
    ) -> Any:
        """The output of one module of the model, as in a pass that has come this far.

        `counts` are the operations that each layer has run before.
        """
        self._assignment = assignment
        self._counts = dict(counts)
        with torch.no_grad(), self._stack.installed(module), self:
            return module(*args, **kwargs)

    # ---- the pass

    def _forward(
        self, assignment: Assignment, inputs: Tensor, batch_size: int
    ) -> NDArray[np.float32]:
        self._assignment = assignment
        outputs: list[NDArray[np.float32]] = []
        with torch.no_grad(), self._stack.installed(), self:
            for start in range(0, len(inputs), batch_size):
                self._counts.clear()
                outputs.append(as_array(self.answer(inputs[start : start + batch_size])))
        return np.concatenate(outputs)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in COMPOSITES:
            with self:
                return COMPOSITES[func](*args, **kwargs)
        path = self._stack.paths[-1] if self._stack.paths else None
        name = self.owner.get(path) if path is not None else None
        if name is None:
            return func(*args, **kwargs)
        operation = OPERATIONS.get(func)
        if operation is None:
            precision = self._assignment.get(name)
            if precision is None or precision.kind != "float":
                return func(*args, **kwargs)
            return self._float_function(precision, func, args, kwargs)
        number = self._counts.get(name, 0)
        self._counts[name] = number + 1
        if self._recording:
            return self._record(name, number, operation, func, args, kwargs)
        precision = self._assignment.get(name)
        if precision is None:
            return func(*args, **kwargs)
        if precision.kind == "float":
            return self._float_function(precision, func, args, kwargs)
        return self._integer_operation(name, number, operation, precision, func, args, kwargs)

    def _entered(self, path: str, module: nn.Module, args: tuple[Any, ...]) -> Any:
        precision = self._assignment.get(path)
        if precision is None or precision.kind != "float":
            return None
        return tuple(_cast(value, precision) for value in args)

    def _left(self, path: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if path not in self._rounded_modules or not isinstance(output, Tensor):
            return None
        site: Site = (path, *MODULE_OUTPUT)
        if self._recording:
            self._observe(site, output)
            return None
        precision = self._assignment.get(path)
        if precision is None or precision.kind != "integer":
            return None
        return round_activation(output, self.ranges[site], self.scheme.activation_bits)

    # ---- one operation

    def _observe(self, site: Site, value: Tensor) -> None:
        seen = Range(float(value.min()), float(value.max()))
        known = self.ranges.get(site)
        self.ranges[site] = seen if known is None else known.merge(seen)

    def _record(
        self,
        name: str,
        number: int,
        operation: Operation,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        for slot in operation.activations:
            value = operand(slot, args, kwargs)
            if value is not None:
                self._observe((name, number, slot[0]), value)
        output = func(*args, **kwargs)
        if operation.kind == "conv":
            self._observe((name, number, OUTPUT), output)
        return output

    def _float_function(
        self,
        precision: Precision,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        given = tuple(self._cast_parameter(a, precision) for a in args)
        named = {key: self._cast_parameter(value, precision) for key, value in kwargs.items()}
        return _cast(func(*given, **named), precision)

    def _cast_parameter(self, value: Any, precision: Precision) -> Any:
        if not isinstance(value, nn.Parameter) or value.dtype != torch.float32:
            return value
        key = (id(value), precision.name)
        if key not in self._weights:
            self._weights[key] = (round_float(value, precision), value)
        return self._weights[key][0]

    def _integer_operation(
        self,
        name: str,
        number: int,
        operation: Operation,
        precision: Precision,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        bits = self.scheme.activation_bits
        given, named = list(args), dict(kwargs)
        for slot in operation.activations:
            value = operand(slot, args, kwargs)
            if value is not None:
                rounded = round_activation(value, self.ranges[(name, number, slot[0])], bits)
                replace_operand(slot, rounded, given, named)
        weight = operand(operation.weight, args, kwargs) if operation.weight else None
        if operation.weight and weight is not None:
            rounded, scales = self._integer_weight(weight, operation, precision)
            replace_operand(operation.weight, rounded, given, named)
            bias = operand(operation.bias, args, kwargs) if operation.bias else None
            if operation.bias and bias is not None:
                slot = operation.activations[0]
                input_scale, _ = affine_grid(self.ranges[(name, number, slot[0])], bits)
                if len(scales) == len(bias):
                    bias = round_bias(bias, input_scale, scales)
                replace_operand(operation.bias, bias, given, named)
        output = func(*given, **named)
        if operation.kind == "conv" and self.scheme.rounds_conv_output:
            output = round_activation(output, self.ranges[(name, number, OUTPUT)], bits)
        return output

    def _integer_weight(
        self, weight: Tensor, operation: Operation, precision: Precision
    ) -> tuple[Tensor, Tensor]:
        key = (id(weight), precision.name)
        if key not in self._weights or not isinstance(weight, nn.Parameter):
            if operation.kind == "embedding":
                return round_table(weight, precision), torch.ones(1)
            axis = operation.out_channel_axis
            self._weights[key] = (
                round_weight(weight, precision, axis),
                weight_scales(weight, precision.bits, axis),
            )
        return self._weights[key]


def as_array(output: Tensor) -> NDArray[np.float32]:
    """A model's output [N, ...] as [N, K]."""
    array: NDArray[np.float32] = output.flatten(1).float().numpy()
    return array


def _cast(value: Any, precision: Precision) -> Any:
    if isinstance(value, Tensor) and value.dtype == torch.float32:
        return round_float(value, precision)
    return value
