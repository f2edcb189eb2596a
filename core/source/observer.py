"""Watching one forward pass: which layer runs what, and where its values come from."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from core.errors import ModelError
from core.layers import Fused, TensorKind
from core.numerics import kernel_table
from core.source.batches import copied
from core.source.fusion import Links
from core.source.operations import (
    COMPOSITES,
    Operation,
    Stored,
    as_separate_operands,
    has_complex,
    label_of,
    multiply_accumulates,
    operand,
    product_of,
    recognise,
)
from core.source.ownership import ModuleStack
from core.source.plain import BRING_FLOAT
from core.source.roles import DROPOUTS
from core.source.trees import first_tensor, holds_rows, tensors

HEAVY = ("linear", "conv", "matmul")
COMPLEX_MACS = 4
"""Real multiply-accumulates in a complex one: (a + bi)(c + di) takes four products."""
INPUT = "(input)"
"""Stands for the model's own input among the producers of a tensor; never a layer."""
JOIN = "(join %d)"
"""Stands for glue into which several producers flow; no module path holds parentheses."""


@dataclass
class ObservedPass:
    """What was observed of one layer; becomes a `Layer`."""

    order: int
    macs: int = 0
    counted: int = 0
    operations: dict[str, int] = field(default_factory=dict)
    input_shape: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    input_elements: int = 0
    output_elements: int = 0
    inputs_seen: set[int] = field(default_factory=set)


class Observer(TorchFunctionMode):
    """Watches one forward pass. Producers of every tensor are tracked through glue."""

    def __init__(
        self, model: nn.Module, owner: dict[str, str | None], functions: Collection[str] = ()
    ) -> None:
        super().__init__()
        self.owner = owner
        self._functions = functions
        self.model = model
        self.seen: dict[str, ObservedPass] = {}
        self.glue: set[str] = set()
        self.kinds: dict[int, tuple[TensorKind, int, int, int]] = {}
        self.weight_of: dict[int, int] = {}
        self.reader: dict[int, str] = {}
        self.stored = Stored(model)
        self.links = Links(model, self.stored)
        self.flows: dict[tuple[str, str], int] = {}
        self.last_product: str | None = None
        self.joins = 0
        self.fused: dict[str, tuple[Fused, ...]] = {}
        self.called: set[str] = set()
        self.grids: dict[int, int] = {}
        """Bias (id) -> scales that its products store it with."""
        self.multiplied_in_float: set[int] = set()
        """Weights (by id) of products whose kernels take no integers."""
        self.in_groups: set[str] = set()
        """Layers with a product that reads a matrix of weights."""
        self.tables: dict[int, set[str]] = {}
        """Table (id) -> the layers that look rows of it up."""
        self.read_otherwise: set[int] = set()
        """Tensors (by id) that something else than a look-up of rows reads."""
        self.outside: dict[int, Tensor] = {}
        """Tensors (by id) that are read and neither stored nor made in the pass."""
        self._made: set[int] = set()
        self.read: set[int] = set()
        """Paths of the modules that ran, and ids of the stored tensors that were read."""
        self.containers: set[str] = set()
        """Containers that turned out to be layers."""
        self._idle = 0
        self._producer: dict[int, str] = {}
        self._alive: list[Tensor] = []  # ids are reused once a tensor is freed
        self.stack = ModuleStack(model, self._entered, self._left)

    def _layer(self, name: str) -> ObservedPass:
        return self.seen.setdefault(name, ObservedPass(order=len(self.seen)))

    def _entered(
        self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if self._idle or not holds_rows((args, kwargs)):
            self._idle += 1  # a branch that no sample takes
            return
        self.called.add(path)
        if self.owner[path] == path:
            seen = self._layer(path)
            given = first_tensor((args, kwargs))
            if given is not None and not seen.input_shape:
                seen.input_shape = tuple(given.shape[1:])

    def _left(self, path: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._idle:
            self._idle -= 1
            return
        given = first_tensor(output)
        if self.owner[path] == path and given is not None:
            seen = self._layer(path)
            seen.output_shape = tuple(given.shape[1:])
            # Of the form alone: to take a row would be one more reader of the value.
            seen.output_elements = max(seen.output_elements, math.prod(given.shape[1:]))

    def feed(self, inputs: Any) -> Any:
        """A copy of `inputs` where the model is, marked as produced by no layer."""
        given = copied(inputs, self.model)
        self._remember(given, INPUT)
        return given

    def _remember(self, output: Any, producer: str) -> None:
        for tensor in tensors(output):
            self._producer[id(tensor)] = producer
            self._alive.append(tensor)

    def _flow(self, tensor: Tensor, target: str) -> None:
        edge = (self._producer[id(tensor)], target)
        self.flows[edge] = max(self.flows.get(edge, 0), tensor.numel())

    def _through_glue(self, given: list[Tensor], output: Any) -> None:
        """What several producers flow into is a join; what only one reaches stays its own."""
        produced = [tensor for tensor in given if id(tensor) in self._producer]
        sources = {self._producer[id(tensor)] for tensor in produced}
        if len(sources) == 1:
            self._remember(output, sources.pop())
        elif sources:
            join = JOIN % self.joins
            self.joins += 1
            for tensor in produced:
                self._flow(tensor, join)
            self._remember(output, join)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        args = as_separate_operands(func, args)
        if func in COMPOSITES:
            with self:
                return COMPOSITES[func](*args, **kwargs)
        output = func(*args, **kwargs)
        if not self.stack.paths or self._idle:
            return output
        result, path = first_tensor(output), self.stack.paths[-1]
        if result is not None and result.is_quantized:
            what = f"Module {path!r}" if path else "The model itself"
            raise ModelError(f"{what} computes on quantized tensors.", BRING_FLOAT)
        if result is not None and not result.numel():
            return output  # what is done with no sample is not done
        operation = None if result is None else recognise(func, args, kwargs, self.stored)
        self.links.note(func, args, kwargs, output, operation, path)
        given = tensors((args, tuple(kwargs.values())))
        if func is Tensor.__setitem__ and given:
            if self.owner[path] is None:
                self._through_glue(given, given[0])
            else:
                self._remember(given[0], self.owner[path] or "")
        if result is None:
            return output
        self._note_read(given, output)
        if operation is None:
            roots = (self.stored.root(tensor) for tensor in given)
            self.read_otherwise.update(id(root) for root in roots if root is not None)
        name = self.owner[path]
        is_product = operation is not None and operation.kind in HEAVY
        if name is None and (is_product or self._is_rounded(func, given, result)):
            # A container that multiplies on its own, or computes what the scheme rounds, is a layer
            # (its children stay theirs).
            self.owner[path] = name = path
            self._layer(path)
            self.containers.add(path)
        if name is None or isinstance(self.model.get_submodule(name), DROPOUTS):
            if name is None:
                self.glue.add(path)
            self._through_glue(given, output)
            return output
        seen = self._layer(name)
        for tensor in given:
            source = self._producer.get(id(tensor), name)
            if source != name and id(tensor) not in seen.inputs_seen:
                seen.inputs_seen.add(id(tensor))
                seen.input_elements += tensor.numel()
                self._flow(tensor, name)
        label = operation.kind if operation else label_of(func) or "other"
        if has_complex(args, kwargs):
            label = f"complex {label}"
            product = product_of(func, args, kwargs, self.stored)
            if product is not None:
                seen.macs += COMPLEX_MACS * multiply_accumulates(product, args, kwargs, result)
        if not label.startswith("get"):
            seen.operations[label] = seen.operations.get(label, 0) + 1
        if operation is not None:
            if operation.special:
                seen.operations[operation.special] = seen.operations.get(operation.special, 0) + 1
            seen.macs += multiply_accumulates(operation, args, kwargs, result)
            self._note_stored(operation, name, seen.counted, args, kwargs)
            seen.counted += 1
            if operation.kind in HEAVY and isinstance(self.model.get_submodule(path), nn.Linear):
                self.last_product = name
        self._remember(output, name)
        return output

    def _is_rounded(self, func: Callable[..., Any], given: list[Tensor], made: Tensor) -> bool:
        """Whether a function is one of those that the scheme rounds, and takes an activation."""
        if label_of(func) not in self._functions or not made.is_floating_point():
            return False
        return any(id(tensor) in self._producer for tensor in given)

    def unreached(self) -> list[str]:
        """Paths of modules that hold parameters and that this pass left out."""
        return [
            path
            for path, module in self.model.named_modules()
            if path not in self.called
            and (own := list(module.parameters(recurse=False)))
            and not any(id(parameter) in self.read for parameter in own)
        ]

    def share_among(self, samples: int) -> None:
        """Make what was counted in a pass of `samples` a mean for one of them, rounded up."""
        for seen in self.seen.values():
            seen.macs = -(-seen.macs // samples)
            seen.input_elements = -(-seen.input_elements // samples)
        self.flows = {edge: -(-elements // samples) for edge, elements in self.flows.items()}

    def add(self, other: Observer) -> list[str]:
        """Take from `other`, another pass of the same model, the layers that this one did not
        reach, with the joins that they flow into or out of; their names, in order.
        """
        order = sorted(other.seen, key=lambda name: other.seen[name].order)
        new = [name for name in order if name not in self.seen]
        for name in new:
            other.seen[name].order = len(self.seen)
            self.seen[name] = other.seen[name]
            self.owner[name] = name
        self.fused |= {name: other.fused[name] for name in new if name in other.fused}
        self.kinds = {**other.kinds, **self.kinds}
        self.weight_of = {**other.weight_of, **self.weight_of}
        self.reader = {**other.reader, **self.reader}
        self.glue |= other.glue
        self.containers |= other.containers & set(new)
        self.read |= other.read
        self.outside |= other.outside
        self.grids = {**other.grids, **self.grids}
        self.multiplied_in_float |= other.multiplied_in_float
        self.in_groups |= other.in_groups
        self.read_otherwise |= other.read_otherwise
        for key, names in other.tables.items():
            self.tables.setdefault(key, set()).update(names)
        beside = {end for edge in other.flows if set(edge) & set(new) for end in edge}
        joins = {JOIN % k: JOIN % (self.joins + k) for k in range(other.joins)}
        kept = {name for name in joins if name in beside} | set(new)
        for (source, target), elements in other.flows.items():
            if source in kept or target in kept:
                edge = (joins.get(source, source), joins.get(target, target))
                self.flows[edge] = max(self.flows.get(edge, 0), elements)
        self.joins += other.joins
        return new

    def _note_read(self, given: list[Tensor], output: Any) -> None:
        for tensor in given:
            root = self.stored.root(tensor)
            if root is not None:
                self.read.add(id(root))
            elif (
                tensor.numel()
                and id(tensor) not in self._made
                and id(tensor) not in self._producer
                and _is_held(tensor)
            ):
                self.outside[id(tensor)] = tensor
        for tensor in tensors(output):
            self._made.add(id(tensor))
            self._alive.append(tensor)  # ids are reused once a tensor is freed

    def _note_stored(
        self, operation: Operation, name: str, number: int, args: Any, kwargs: Any
    ) -> None:
        """What the operation's weight and bias are, and which layer read them first."""
        weight = operand(operation.weight, args, kwargs) if operation.weight else None
        bias = operand(operation.bias, args, kwargs) if operation.bias else None
        root = self.stored.root(weight)
        if weight is not None and root is not None:
            rows = operation.kind == "embedding" and operation.out_channel_axis is not None
            if rows and weight is root:
                self.tables.setdefault(id(root), set()).add(name)
            else:
                self.read_otherwise.add(id(root))
            if operation.kind == "embedding":
                found: tuple[TensorKind, int, int, int] = ("table", 1, number, 0)
            else:
                axis = _axis_of(root, weight, operation.out_channel_axis)
                channels = 1 if axis is None else int(root.shape[axis])
                found = ("weight", channels, number, axis or 0)
            self.kinds.setdefault(id(root), found)
            state = kernel_table.operation_state(kernel_table.DEFAULT, operation.special)
            if state != "computes":
                self.multiplied_in_float.add(id(root))
            plain = operation.kind == "linear" and not operation.special and weight.ndim == 2
            if plain and self.kinds[id(root)][0] == "weight":
                self.in_groups.add(name)
            self.reader.setdefault(id(root), name)
        if bias is not None:
            self.kinds.setdefault(id(bias), ("bias", 1, number, 0))
            self.weight_of.setdefault(id(bias), id(root))
            self.reader.setdefault(id(bias), name)
            value = operand(operation.activations[0], args, kwargs)
            if operation.kind == "conv" or (value is not None and value.ndim == 2):  # Conv, Gemm
                self.grids[id(bias)] = self.grids.get(id(bias), 0) + bias.numel()


def _is_held(tensor: Tensor) -> bool:
    """Whether `tensor` has memory of its own: what `torch.vmap` gives its function has none."""
    try:
        tensor.untyped_storage()
    except NotImplementedError:
        return False
    return True


def _axis_of(root: Tensor, view: Tensor, axis: int | None) -> int | None:
    """The axis of a stored tensor that is `axis` of `view`, a view of it; None where none is."""
    if axis is None or view.ndim < 2:
        return None
    axis %= view.ndim
    if view is root:
        return axis
    steps = list(root.stride())
    return steps.index(view.stride(axis)) if view.stride(axis) in steps else None
