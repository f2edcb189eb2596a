"""One operation at a time: recording what it meets, or running it in another precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from core.engines.torch.simulate.dynamic import SampleAxis, round_dynamic, round_samples
from core.engines.torch.simulate.folding import Folding
from core.engines.torch.simulate.functions import Functions
from core.engines.torch.simulate.input_channels import equalise, input_channels
from core.engines.torch.simulate.stored_weights import StoredTensors, is_matrix, settled
from core.engines.variant import AS_USUAL, InputChannels, Variant
from core.layers import ROOT, LayerTable
from core.numerics import kernel_table
from core.numerics.activation_grids import grid_of
from core.numerics.calibrate.calibration import OUTPUT
from core.numerics.calibrate.calibrators import MIN_MAX, Calibrator
from core.numerics.precision import Precision
from core.numerics.ranges import Ranges, Site
from core.numerics.rounding import Range, activation_scale, round_scaled
from core.numerics.scheme import Scheme
from core.source.held import held_tensors
from core.source.operations import Operation, Stored, operand, replace_operand
from core.source.roles import CONVOLUTIONS, RECURRENTS
from core.source.trees import map_tensors

Observe = Callable[[Site, Tensor, InputChannels | None], None]
"""Is told an activation: where, its value, and the channels along which a product takes it in (None
= it goes into no product)."""


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
        self._takes_scales = {layer.name for layer in layers if layer.takes_scales}
        self._in_groups = {layer.name for layer in layers if layer.in_groups}
        self._packs_products = {layer.name for layer in layers if layer.packs_products}
        self._states = {
            special: kernel_table.operation_state(scheme.name, special)
            for special in ("", *kernel_table.UNLIKE_PRODUCTS)
        }
        products: tuple[type[nn.Module], ...] = (nn.Linear, *CONVOLUTIONS)
        modules = {
            layer.name: model.get_submodule("" if layer.name == ROOT else layer.name)
            for layer in layers
        }
        self._one_product = {name for name, one in modules.items() if isinstance(one, products)}
        self._repeated = {name for name, one in modules.items() if isinstance(one, RECURRENTS)}
        self._repeated |= self._one_product
        self._functions = Functions(scheme, stored)
        held = held_tensors(model)
        tables = [
            held[spec.name]
            for layer in layers
            for spec in layer.tensors
            if spec.kind == "table" and spec.group_axis >= 0 and spec.name in held
        ]
        self._stored_tensors = StoredTensors(stored, scheme, tables)
        self._observe: Observe | None = None
        self._variant: Variant = AS_USUAL
        self._samples = 1
        """How many the batch at hand has."""
        self._lie: dict[Site, SampleAxis | None] | None = None
        """Where samples lie in what products with matrices take in; None until that is looked at."""
        self._apart = True
        self._sights: dict[Site, Tensor] | None = None

    def hold_weights(self, most_bytes: int) -> None:
        """Hold at most so many bytes of rounded weights; the others are rounded each time."""
        self._stored_tensors.hold(most_bytes)

    def _is_calibrated(self, name: str, special: str = "") -> bool:
        """Whether activations of the layer, or of its product `special`, are rounded to ranges that
        calibration saw.
        """
        return (
            not (self._takes_floats(name) or name in self._in_float or name in self._dynamic)
            and self._states[special] == "computes"
        )

    def _takes_floats(self, name: str, special: str = "") -> bool:
        """Whether only the weights of the layer, or of its product `special`, are rounded."""
        return (
            name in self._weight_only
            or self._states[special] == "stores"
            or not self._variant.activations
        )

    def _range(self, site: Site) -> Range | None:
        """The range of an activation, None where no calibration sample came by. A call beyond
        those of calibration, of a layer with one product or of a step beyond the longest sequence,
        has the range of all calls of its layer.
        """
        found = self._variant.ranges.get(site) or self.ranges.get(site)
        if found is not None or site[0] not in self._repeated or site[1] < 0:
            return found
        for (name, number, operand_of), seen in self.ranges.items():
            if name == site[0] and number >= 0 and operand_of == site[2]:
                found = seen if found is None else found.merge(seen)
        return found

    def _rounded(self, site: Site, value: Tensor) -> Tensor:
        if self._functions.gave(value, site[0]) or not value.numel():  # no sample takes this branch
            return value
        seen = self._range(site)
        if seen is None and self._functions.is_met(site, self.ranges):
            return value  # it is a constant, made before what is replayed
        seen = seen or self.ranges.of(site)
        rounded = self._functions.round_to(value, grid_of(seen, self.scheme))
        self._functions.rounded(rounded, site[0])
        return rounded

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
            if self._observe is not None:
                self._observe(site, value, None)
            return value

        return self._functions.call(name, precision, func, args, kwargs, visit, self.ranges)

    def _record(
        self, name: str, number: int, operation: Operation, func: Callable[..., Any],
        args: tuple[Any, ...], kwargs: dict[str, Any], observe: Observe,
    ) -> Any:  # fmt: skip
        rounds = self._is_calibrated(name, operation.special)
        given, named = self._folding.operands(operation, args, kwargs)
        weight = operand(operation.weight, given, named) if operation.weight else None
        for slot in operation.activations if rounds else ():
            value = operand(slot, args, kwargs)
            if value is not None:
                channels = input_channels(func, operation, value, weight)
                observe((name, number, slot[0]), value, channels)
        output = func(*args, **kwargs)
        if rounds and operation.kind in self.scheme.rounds_outputs:
            end = self._folding.end(operation, args, kwargs, output)
            observe((name, number, OUTPUT), end, None)
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

    def _weights_operation(
        self, name: str, operation: Operation, precision: Precision, func: Callable[..., Any],
        args: tuple[Any, ...], kwargs: dict[str, Any],
    ) -> Any:  # fmt: skip
        """A product of floats with a weight that is kept in few bits, where its layer has such."""
        given, named = list(args), dict(kwargs)
        if name in self._in_groups and self._variant.weights:
            self._stored_tensors.place_groups(operation, precision, given, named)
        return func(*given, **named)

    def _scaled_operation(
        self, name: str, number: int, operation: Operation, precision: Precision,
        func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any],
    ) -> Any:  # fmt: skip
        """A product of floats in few bits over scales; of one that stores its weight in integers the
        weight alone is one.
        """
        special, kept = operation.special, precision.activations
        in_float = name not in self._takes_scales or self._states[special] == "float"
        if kept is None or in_float or operation.kind == "embedding":
            return func(*args, **kwargs)
        given, named = list(args), dict(kwargs)
        for slot in () if self._takes_floats(name, special) else operation.activations:
            value = operand(slot, given, named)
            if value is not None and value.numel():
                site: Site = (name, number, slot[0])
                scale = activation_scale(self._range(site) or self.ranges.of(site), kept)
                rounded = round_scaled(value, value.new_tensor(scale), kept)
                replace_operand(slot, rounded, given, named)
        self._stored_tensors.place(operation, precision, None, given, named)
        return func(*given, **named)

    def _dynamic_operation(
        self, name: str, number: int, operation: Operation, precision: Precision,
        func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any],
    ) -> Any:  # fmt: skip
        """A product of integers with a matrix, over the range that each sample has there. A kernel
        that sets ranges in any case does what it does in INT8, and a table is stored as there.
        """
        if name in self._dynamic or (
            operation.kind == "embedding" and self.scheme.table == "affine"
        ):
            return self._integer_operation(name, number, operation, precision, func, args, kwargs)
        kept, given, named = precision.activations, list(args), dict(kwargs)
        slot = next(iter(operation.activations), None)
        value = operand(slot, given, named) if slot else None
        if (
            kept is None or slot is None or value is None or name not in self._packs_products
            or not is_matrix(operation, args, kwargs)
        ):  # fmt: skip
            return func(*args, **kwargs)
        site: Site = (name, number, slot[0])
        if self._sights is not None:
            self._sights[site] = value.detach().clone()
            return func(*args, **kwargs)
        lies = self._lie.get(site) if self._lie else None
        rounded = round_samples(value, kept.bits, self._samples, lies)
        replace_operand(slot, rounded, given, named)
        self._stored_tensors.place(operation, precision, None, given, named)
        return func(*given, **named)

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
        special = operation.special
        if name in self._in_float or self._states[special] == "float":
            return func(*args, **kwargs)
        given, named = list(args), dict(kwargs)
        factors = self._variant.factors.get((name, number, 0))
        if factors is not None:
            equalise(factors, operation, given, named)
        for slot in () if self._takes_floats(name, special) else operation.activations:
            value = operand(slot, given, named)
            if value is not None and name in self._dynamic:
                rounded = round_dynamic(value, self.scheme.activation_bits)
                replace_operand(slot, rounded, given, named)
            elif value is not None:
                rounded = self._rounded((name, number, slot[0]), value)
                replace_operand(slot, rounded, given, named)
        first = operation.activations[0][0] if operation.activations else OUTPUT
        seen = None if self._takes_floats(name, special) else self._range((name, number, first))
        scale = None if seen is None else grid_of(seen, self.scheme).scale
        self._stored_tensors.place(
            operation, precision, scale, given, named, exact=not self._variant.weights
        )
        output = func(*given, **named)
        if self._is_calibrated(name, special) and operation.kind in self.scheme.rounds_outputs:
            output = self._rounded((name, number, OUTPUT), output)
        return output
