"""The layers of a model, found by running it once on one sample.

Module hooks say which module is running and a torch-function mode sees every operation, so
that parameters, multiply-accumulates, shapes and the data flow between layers are counted from
what was executed and not from what was declared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from core.errors import ModelError
from core.layers import Edge, Layer, LayerTable, State, TensorKind, TensorSpec
from core.source.contract import ModelSource
from core.source.operations import COMPOSITES, OPERATIONS, multiply_accumulates, operand
from core.source.ownership import ModuleStack, first_tensor, owners
from core.source.roles import DROPOUTS, check_roles, role_of

HEAVY = ("linear", "conv", "matmul")
INPUT = "(input)"
"""Stands for the model's own input among the producers of a tensor; never a layer."""
JOIN = "(join %d)"
"""Stands for glue into which several producers flow; no module path holds parentheses."""


@dataclass
class _Seen:
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


class _Observer(TorchFunctionMode):
    """Watches one forward pass. Producers of every tensor are tracked through glue."""

    def __init__(self, model: nn.Module, owner: dict[str, str | None]) -> None:
        super().__init__()
        self.owner = owner
        self.model = model
        self.seen: dict[str, _Seen] = {}
        self.glue: set[str] = set()
        self.kinds: dict[int, tuple[TensorKind, int, int]] = {}
        self.weight_of: dict[int, int] = {}
        self.flows: dict[tuple[str, str], int] = {}
        self.last_product: str | None = None
        self.joins = 0
        self._producer: dict[int, str] = {}
        self._alive: list[Tensor] = []  # ids are reused once a tensor is freed
        self.stack = ModuleStack(model, self._entered, self._left)

    def _layer(self, name: str) -> _Seen:
        return self.seen.setdefault(name, _Seen(order=len(self.seen)))

    def _entered(self, path: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        if self.owner[path] == path:
            seen = self._layer(path)
            given = first_tensor(args)
            if given is not None and not seen.input_shape:
                seen.input_shape = tuple(given.shape[1:])

    def _left(self, path: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        given = first_tensor(output)
        if self.owner[path] == path and given is not None:
            seen = self._layer(path)
            seen.output_shape = tuple(given.shape[1:])
            seen.output_elements = max(seen.output_elements, given[:1].numel())

    def feed(self, inputs: Tensor) -> Tensor:
        """`inputs`, marked as produced by no layer."""
        self._remember(inputs, INPUT)
        return inputs

    def _remember(self, output: Any, producer: str) -> None:
        for tensor in _tensors((output,)):
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
        if func in COMPOSITES:
            with self:
                return COMPOSITES[func](*args, **kwargs)
        output = func(*args, **kwargs)
        result = first_tensor(output)
        if result is None or not self.stack.paths:
            return output
        operation = OPERATIONS.get(func)
        path = self.stack.paths[-1]
        name = self.owner[path]
        if name is None and operation is not None and operation.kind in HEAVY:
            # A container that multiplies on its own is a layer (its children stay theirs).
            self.owner[path] = name = path
            seen = self._layer(path)
        given = _tensors(args) + _tensors(tuple(kwargs.values()))
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
        label = operation.kind if operation else getattr(func, "__name__", "other").strip("_")
        if not label.startswith("get"):
            seen.operations[label] = seen.operations.get(label, 0) + 1
        if operation is not None:
            seen.macs += multiply_accumulates(operation, args, kwargs, result)
            weight = operand(operation.weight, args, kwargs) if operation.weight else None
            bias = operand(operation.bias, args, kwargs) if operation.bias else None
            if weight is not None:
                kind: TensorKind = "table" if operation.kind == "embedding" else "weight"
                channels = int(weight.shape[operation.out_channel_axis]) if kind == "weight" else 1
                self.kinds.setdefault(id(weight), (kind, channels, seen.counted))
            if bias is not None:
                self.kinds.setdefault(id(bias), ("bias", 1, seen.counted))
                self.weight_of.setdefault(id(bias), id(weight))
            seen.counted += 1
            if operation.kind in HEAVY and isinstance(self.model.get_submodule(path), nn.Linear):
                self.last_product = name
        self._remember(output, name)
        return output


def _tensors(values: tuple[Any, ...]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, tuple | list):
            found.extend(v for v in value if isinstance(v, Tensor))
    return found


def _state(module: nn.Module, role: str, operations: Mapping[str, int]) -> State:
    if isinstance(module, DROPOUTS):
        return "nothing"
    if role == "pooling" or any(kind in operations for kind in HEAVY):
        return "computes"
    return "stores" if "embedding" in operations else "rounds output"


def _activation_scales(state: State, role: str, operations: Mapping[str, int]) -> int:
    if state == "rounds output" or role == "pooling":
        return 1
    per_call = {"linear": 1, "conv": 2, "matmul": 2}
    return sum(per_call.get(kind, 0) * count for kind, count in operations.items())


def take_inventory(source: ModelSource, *, expand_units: bool = False) -> LayerTable:
    """Run `source.model` on one calibration sample and return its layers in execution order.

    With `expand_units` the declared units are taken apart. Does not change the model. Raises
    `ModelError` if the forward pass fails.
    """
    check_roles(source.roles)
    model = source.model
    owner = owners(model, source.units, expand_units)
    observer = _Observer(model, owner)
    try:
        with torch.inference_mode(False), torch.no_grad(), observer.stack.installed(), observer:
            model(observer.feed(source.calibration.inputs[:1]))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ModelError(
            f"The model failed on one calibration sample: {error}",
            "Run the model by hand on calibration[:1] and mend what it reports.",
        ) from error
    return _table(source, observer)


def _table(source: ModelSource, observer: _Observer) -> LayerTable:
    model, owner = source.model, observer.owner
    owned: dict[str, list[TensorSpec]] = {}
    params: dict[str, int] = {}
    parts: dict[str, list[str]] = {}
    glue_tensors: list[TensorSpec] = []
    first_name: dict[int, str] = {}
    persistent = set(model.state_dict().keys())
    # remove_duplicate=False so that a tied weight is met under each name; `first_name` keeps the first
    named = [
        *model.named_parameters(remove_duplicate=False),
        *((n, b) for n, b in model.named_buffers(remove_duplicate=False) if n in persistent),
    ]
    for full_name, tensor in named:
        if id(tensor) in first_name or not tensor.is_floating_point():
            continue
        first_name[id(tensor)] = full_name
        path = full_name.rpartition(".")[0]
        kind, channels, operation = observer.kinds.get(id(tensor), ("float", 1, -1))
        weight = first_name.get(observer.weight_of.get(id(tensor), 0), "")
        spec = TensorSpec(full_name, tuple(tensor.shape), kind, channels, operation, weight)
        name = owner.get(path)
        if name is None or name not in observer.seen:
            glue_tensors.append(spec)
            continue
        owned.setdefault(name, []).append(spec)
        if isinstance(tensor, nn.Parameter):
            params[name] = params.get(name, 0) + tensor.numel()
        if path not in parts.setdefault(name, []):
            parts[name].append(path)
    layers: list[Layer] = []
    for name, seen in sorted(observer.seen.items(), key=lambda item: item[1].order):
        module = model.get_submodule(name)
        if not seen.operations and not params.get(name) and not isinstance(module, DROPOUTS):
            continue  # nn.Identity and empty containers decide nothing
        role = source.roles.get(name) or role_of(
            name,
            module,
            is_unit=next(module.children(), None) is not None,
            is_last_product=name == observer.last_product,
        )
        state = _state(module, role, seen.operations)
        layers.append(
            Layer(
                name=name,
                role=role,
                kind=type(module).__name__,
                state=state,
                params=params.get(name, 0),
                macs=seen.macs,
                input_shape=seen.input_shape,
                output_shape=seen.output_shape,
                parts=tuple(parts.get(name, ())),
                operations=tuple(sorted(seen.operations.items())),
                tensors=tuple(owned.get(name, ())),
                activation_scales=_activation_scales(state, role, seen.operations),
                quantizes_output=role == "pooling"
                or state == "rounds output"
                or ("conv" in seen.operations and "linear" not in seen.operations),
                input_elements=seen.input_elements,
                output_elements=seen.output_elements,
            )
        )
    index = {layer.name: i for i, layer in enumerate(layers)}
    index |= {JOIN % k: len(layers) + k for k in range(observer.joins)}
    edges = tuple(
        Edge(index[a], index[b], n)
        for (a, b), n in sorted(observer.flows.items())
        if a in index and b in index
    )
    leaves = (n for n, m in model.named_modules() if next(m.children(), None) is None)
    uncalled = tuple(n for n in leaves if (owner.get(n) or n) not in observer.seen)
    glue = tuple(sorted(observer.glue))
    return LayerTable(tuple(layers), edges, glue, tuple(glue_tensors), uncalled, observer.joins)
