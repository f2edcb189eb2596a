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
from core.evidence.held import HeldWeights, cast, give_back, settled
from core.evidence.rounding import Range, affine_grid, observed, round_activation, round_bias
from core.evidence.scheme import Scheme
from core.layers import ROOT, LayerTable
from core.precision import Precision
from core.source.batches import Inputs, Output, count, failed, run_batch, state_kept, take
from core.source.operations import (
    COMPOSITES,
    Operation,
    Stored,
    as_separate_operands,
    operand,
    recognise,
    replace_operand,
)
from core.source.ownership import Arguments, ModuleStack
from core.source.trees import map_tensors, tensors

Site = tuple[str, int, int]
"""(layer, operation number within the layer's forward pass, operand); operand -1 = output."""

Assignment = Mapping[str, Precision]
"""Layers that leave the reference precision. A layer that is not named stays as trained."""

OUTPUT = -1
MODULE_OUTPUT = (-1, OUTPUT)


class Simulator(TorchFunctionMode):
    """A model whose layers can be put into any precision, one assignment at a time.

    Does not change the model. `calibrate` must run before an integer assignment. Batch b of
    every run meets the same random state, so that a model which draws random numbers differs
    from its reference only by the assignment.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: LayerTable,
        owner: Mapping[str, str | None],
        scheme: Scheme,
        output: Output = None,
    ) -> None:
        super().__init__()
        self._output = output
        self._stored = Stored(model)
        self.scheme = scheme
        self.ranges: dict[Site, Range] = {}
        self._model = model
        self._owner = owner
        self._rounded_modules = {
            layer.name
            for layer in layers
            if layer.state == "rounds output" or layer.role == "pooling"
        }
        self._weight_only = {layer.name for layer in layers if layer.state == "stores"}
        self._silent = {layer.name for layer in layers if layer.state == "nothing"}
        self._stack = ModuleStack(model, self._entered, self._left)
        self._assignment: Assignment = {}
        self._recording = False
        self._counts: dict[str, int] = {}
        self._held = HeldWeights(self._stored)
        self._given: list[Arguments | None] = []

    # ---- public

    def calibrate(self, inputs: Inputs, batch_size: int = 64) -> None:
        """Record the min-max range of every activation that a scheme may round."""
        self.ranges.clear()
        self._recording = True
        try:
            self._forward({}, inputs, batch_size)
        finally:
            self._recording = False

    def run(
        self, assignment: Assignment, inputs: Inputs, batch_size: int = 100
    ) -> NDArray[np.float32]:
        """Outputs [N, K] of the model with `assignment` applied to `inputs` of N samples.

        Raises `ModelError` where the model fails, or reaches an operation that no calibration
        sample reached.
        """
        active = {
            name: precision
            for name, precision in assignment.items()
            if precision.float_dtype != "float32" and name not in self._silent
        }
        return self._forward(active, inputs, batch_size)

    # ---- the pass

    def _forward(
        self, assignment: Assignment, inputs: Inputs, batch_size: int
    ) -> NDArray[np.float32]:
        self._assignment = assignment
        outputs: list[NDArray[np.float32]] = []
        total = count(inputs)
        with torch.no_grad(), state_kept(self._model), self._stack.installed(), self:
            for start in range(0, total, batch_size):
                self._counts.clear()
                self._given.clear()
                batch = take(inputs, start, start + batch_size)
                try:
                    found = run_batch(self._model, batch, self._output, seed=start)
                except Exception as error:
                    stop = min(start + batch_size, total) - 1
                    where = f"on samples {start} to {stop}"
                    raise failed(error, where, "those samples") from error
                outputs.append(found.numpy())
        if len({found.shape[1] for found in outputs}) > 1:
            raise ModelError(
                "The model returned outputs of different sizes for different batches.",
                "Pad the inputs to one shape, so that every sample has the same outputs.",
            )
        return np.concatenate(outputs)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        args = as_separate_operands(func, args)
        if func in COMPOSITES:
            with self:
                return COMPOSITES[func](*args, **kwargs)
        path = self._stack.paths[-1] if self._stack.paths else None
        name = self._owner.get(path) if path is not None else None
        if name is None:
            return func(*args, **kwargs)
        operation = recognise(func, args, kwargs, self._stored)
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
            slots = (operation.weight, operation.bias)
            held = [id(operand(slot, args, kwargs)) for slot in slots if slot]
            return self._float_function(precision, func, args, kwargs, frozenset(held))
        return self._integer_operation(name, number, operation, precision, func, args, kwargs)

    def _entered(
        self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments | None:
        precision = self._assignment.get(path or ROOT)
        if precision is None or precision.kind != "float":
            self._given.append(None)
            return None
        self._given.append((args, kwargs))
        given: Arguments = map_tensors((args, kwargs), lambda tensor: cast(tensor, precision))
        return given

    def _left(self, path: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        given = self._given.pop() if self._given else None
        if given is not None:
            give_back(given[0], args)
        name = path or ROOT
        if name not in self._rounded_modules:
            return None
        values = [tensor for tensor in tensors(output) if tensor.is_floating_point()]
        if not values:
            return None
        site: Site = (name, *MODULE_OUTPUT)
        if self._recording:
            self._observe(site, values[0])
            return None
        precision = self._assignment.get(name)
        if precision is None or precision.kind != "integer":
            return None
        rounded = round_activation(values[0], self._range(site), self.scheme.activation_bits)
        if any(values[0] is value for value in args):  # works in place: others hold it too
            values[0].copy_(rounded)
            return None
        return map_tensors(output, lambda tensor: rounded if tensor is values[0] else tensor)

    # ---- one operation

    def _range(self, site: Site) -> Range:
        if site not in self.ranges:
            raise ModelError(
                f"Layer {site[0]!r} ran an operation that no calibration sample reached.",
                "Give calibration inputs that take the same branches as the evaluation inputs.",
            )
        return self.ranges[site]

    def _observe(self, site: Site, value: Tensor) -> None:
        seen = observed(value)
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
        for slot in operation.activations if name not in self._weight_only else ():
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
        held: frozenset[int] = frozenset(),
    ) -> Any:
        def stored(value: Tensor) -> Tensor:
            return self._held.cast(value, precision, always=id(value) in held)

        given, named = map_tensors((args, kwargs), stored)
        return settled(func(*given, **named), (given, named), precision)

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
        for slot in operation.activations if name not in self._weight_only else ():
            value = operand(slot, args, kwargs)
            if value is not None:
                rounded = round_activation(value, self._range((name, number, slot[0])), bits)
                replace_operand(slot, rounded, given, named)
        weight = operand(operation.weight, args, kwargs) if operation.weight else None
        if operation.weight and weight is not None:
            rounded, scales = self._held.integers(weight, operation, precision)
            replace_operand(operation.weight, rounded, given, named)
            bias = operand(operation.bias, args, kwargs) if operation.bias else None
            if operation.bias and bias is not None and name not in self._weight_only:
                slot = operation.activations[0]
                input_scale, _ = affine_grid(self._range((name, number, slot[0])), bits)
                if len(scales) == len(bias):
                    bias = round_bias(bias, input_scale, scales)
                replace_operand(operation.bias, bias, given, named)
        output = func(*given, **named)
        if operation.kind == "conv" and self.scheme.rounds_conv_output:
            output = round_activation(output, self._range((name, number, OUTPUT)), bits)
        return output
