"""Functions inside a layer that are no products, where a scheme rounds what they take or give.

They are numbered apart from products: the k-th such call since the layer was entered has the
operation number -2 - k, so that products keep the numbers that they have under every scheme.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from core.numerics.precision import Precision
from core.numerics.ranges import OUTPUT, Site
from core.numerics.rounding import round_weight
from core.numerics.scheme import ONE_NORM, Scheme
from core.source.operations import Stored
from core.source.trees import tensors

FIRST = -2
"""Operation number of the first such call; -1 is the output of a module."""

_IN_PLACE = frozenset(("add_", "mul_", "sub_", "div_", "relu_", "clamp_", "sigmoid_",
                       "__iadd__", "__imul__", "__isub__", "__itruediv__"))  # fmt: skip


def label_of(func: Callable[..., Any]) -> str:
    """The name of a torch function without what marks its variants (add_, __radd__: add)."""
    name = str(getattr(func, "__name__", ""))
    if name.startswith("__") and name.endswith("__"):
        name = name.strip("_")
        plain = name[1:] if name[:1] in "ri" else name
        return plain if plain in ("add", "mul", "sub", "truediv", "pow") else name
    return name.strip("_")


class Functions:
    """Rounds what a scheme says of such calls, each at its own site."""

    def __init__(self, scheme: Scheme, stored: Stored) -> None:
        self._scheme, self._stored = scheme, stored
        self._takes = frozenset(scheme.input_functions)
        self._gives = frozenset(scheme.output_functions)
        self._counts: dict[str, int] = {}
        self._given: dict[int, weakref.ref[Tensor]] = {}
        self.to_one: set[Site] = set()
        """Sites of softmax outputs that were recorded, where the scheme fixes their range."""

    def begin(self) -> None:
        """A pass begins."""
        self._counts.clear()
        self._given.clear()

    def gave(self, value: Tensor) -> bool:
        """Whether `value` is an output that was visited: a tensor is rounded once."""
        found = self._given.get(id(value))
        return found is not None and found() is value

    def entered(self, owner: Mapping[str, str | None], paths: Sequence[str]) -> None:
        """A module is entered, the last of `paths`: count anew where its layer begins.

        So a layer that is called again meets its own sites, in a full pass as in a replay.
        """
        layer = owner.get(paths[-1])
        around = owner.get(paths[-2]) if len(paths) > 1 else None
        if layer is not None and layer != around:
            self._counts[layer] = 0

    def call(
        self, name: str, precision: Precision | None, func: Callable[..., Any],
        args: tuple[Any, ...], kwargs: Mapping[str, Any], visit: Callable[[Site, Tensor], Tensor],
    ) -> Any:  # fmt: skip
        """`func`'s output with every activation that is rounded given to `visit`, which returns
        what to go on with. `precision` is None while ranges are recorded.
        """
        label = label_of(func)
        takes, gives = label in self._takes, label in self._gives
        if not (takes or gives):
            return func(*args, **kwargs)
        number = FIRST - self._counts.get(name, 0)
        self._counts[name] = self._counts.get(name, 0) + 1
        in_place = getattr(func, "__name__", "") in _IN_PLACE or kwargs.get("inplace", False)
        named = dict(kwargs)
        if takes:
            args, named = self._inputs(name, number, args, named, visit, in_place=in_place)
        if precision is not None and self._scheme.norm_weights and label in ONE_NORM:
            args, named = self._scales(label, precision, args, named)
        output = func(*args, **named)
        if not gives or not isinstance(output, Tensor) or not output.is_floating_point():
            return output
        if label == "softmax" and self._scheme.softmax_to_one:
            self.to_one.add((name, number, OUTPUT))
        rounded = visit((name, number, OUTPUT), output)
        is_shared = in_place or any(output is tensor for tensor in tensors((args, named)))
        if is_shared and rounded is not output:
            rounded = output.copy_(rounded)
        self._given[id(rounded)] = weakref.ref(rounded)
        return rounded

    def _inputs(
        self, name: str, number: int, args: tuple[Any, ...], kwargs: dict[str, Any],
        visit: Callable[[Site, Tensor], Tensor], *, in_place: bool,
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:  # fmt: skip
        """The arguments with every activation visited, in order; stored tensors as they are."""
        first = next(iter(tensors((args, kwargs))), None)
        place = 0

        def seen(value: Any) -> Any:
            nonlocal place
            if isinstance(value, list | tuple):
                return type(value)([seen(item) for item in value])
            if not isinstance(value, Tensor):
                return value
            place += 1
            if not value.is_floating_point() or self._stored.root(value) is not None:
                return value
            rounded = visit((name, number, place - 1), value)
            if in_place and value is first and rounded is not value:
                return value.copy_(rounded)  # it is about to be overwritten, and others hold it
            return rounded

        return tuple(seen(value) for value in args), {k: seen(v) for k, v in kwargs.items()}

    def _scales(
        self, label: str, precision: Precision, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a norm with its scale on one grid."""
        at = {"layer_norm": 2, "batch_norm": 3, "instance_norm": 3}[label]
        given, named = list(args), dict(kwargs)
        weight = given[at] if at < len(given) else named.get("weight")
        if isinstance(weight, Tensor) and weight.dtype == torch.float32:
            rounded = round_weight(weight, precision, None)
            if at < len(given):
                given[at] = rounded
            else:
                named["weight"] = rounded
        return tuple(given), named
