"""One operation at a time: recording what it meets, or running it in another precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from core.engines.torch.simulate.dynamic import round_dynamic
from core.engines.torch.simulate.folding import Folding
from core.engines.torch.simulate.functions import Functions
from core.engines.torch.simulate.stored_weights import StoredTensors, settled
from core.layers import LayerTable
from core.numerics.activation_grids import grid_of, round_to
from core.numerics.calibrate.calibrators import MIN_MAX, Calibrator
from core.numerics.precision import Precision
from core.numerics.ranges import OUTPUT, Ranges, Site
from core.numerics.scheme import Scheme
from core.source.operations import Operation, Stored, operand, replace_operand
from core.source.trees import map_tensors


class Operations(TorchFunctionMode):
    """What a scheme makes of each operation of a layer. `ranges` are the calibrated ones."""

    def __init__(
        self, model: nn.Module, layers: LayerTable, scheme: Scheme,
        calibrator: Calibrator = MIN_MAX,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model, self.scheme, self.calibrator = model, scheme, calibrator
        self.ranges = Ranges()
        self._stored = stored = Stored(model)
        self._folding = Folding(model, layers, stored)
        self._weight_only = {layer.name for layer in layers if layer.state == "stores"}
        self._dynamic = {layer.name for layer in layers if layer.dynamic}
        self._in_float = {layer.name for layer in layers if layer.state == "float"}
        self._functions = Functions(scheme, stored)
        self._stored_tensors = StoredTensors(stored, scheme)

    def _is_calibrated(self, name: str) -> bool:
        """Whether activations of the layer are rounded to ranges that calibration saw."""
        others = (self._weight_only, self._in_float, self._dynamic)
        return not any(name in names for names in others)

    def _observe(self, site: Site, value: Tensor) -> None:
        """Take note of an activation while recording."""
        self.ranges.observe(site, value)

    def _rounded(self, site: Site, value: Tensor) -> Tensor:
        if self._functions.gave(value):
            return value
        return round_to(value, grid_of(self.ranges.of(site), self.scheme))

    def _other_function(
        self, name: str, precision: Precision | None, func: Callable[..., Any],
        args: tuple[Any, ...], kwargs: dict[str, Any],
    ) -> Any:  # fmt: skip
        """A function that is no product, in a layer that is recorded or runs in integers."""
        if not self._is_calibrated(name):
            return func(*args, **kwargs)

        def visit(site: Site, value: Tensor) -> Tensor:
            if precision is not None:
                return self._rounded(site, value)
            self._observe(site, value)
            return value

        return self._functions.call(name, precision, func, args, kwargs, visit)

    def _record(
        self, name: str, number: int, operation: Operation, func: Callable[..., Any],
        args: tuple[Any, ...], kwargs: dict[str, Any],
    ) -> Any:  # fmt: skip
        rounds = self._is_calibrated(name)
        for slot in operation.activations if rounds else ():
            value = operand(slot, args, kwargs)
            if value is not None:
                self._observe((name, number, slot[0]), value)
        output = func(*args, **kwargs)
        if rounds and operation.kind in self.scheme.rounds_outputs:
            end = self._folding.end(operation, args, kwargs, output)
            self._observe((name, number, OUTPUT), end)
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
            return self._stored_tensors.cast(value, precision, always=id(value) in held)

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
        if name in self._in_float:
            return func(*args, **kwargs)
        given, named = list(args), dict(kwargs)
        for slot in operation.activations if name not in self._weight_only else ():
            value = operand(slot, args, kwargs)
            if value is not None and name in self._dynamic:
                rounded = round_dynamic(value, self.scheme.activation_bits)
                replace_operand(slot, rounded, given, named)
            elif value is not None:
                rounded = self._rounded((name, number, slot[0]), value)
                replace_operand(slot, rounded, given, named)
        first = operation.activations[0][0] if operation.activations else OUTPUT
        seen = None if name in self._weight_only else self.ranges.get((name, number, first))
        scale = None if seen is None else grid_of(seen, self.scheme).scale
        self._stored_tensors.place(operation, precision, scale, given, named)
        output = func(*given, **named)
        if self._is_calibrated(name) and operation.kind in self.scheme.rounds_outputs:
            output = self._rounded((name, number, OUTPUT), output)
        return output
