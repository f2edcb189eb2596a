"""Functions that are no products, where a scheme rounds what they take or give: those of a layer,
and those of a container (glue), which is a layer of its own then.

They are numbered apart from products: the k-th call since the layer was entered has the operation
number -2 - k, so that products keep the numbers that they have under every scheme.

Where a scheme rounds outputs too, it rounds by tensor: any other function of the layer that reads
what one of them takes rounded reads it rounded too.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from core.engines.torch.replay.recording import version
from core.numerics.activation_grids import Grid, round_to
from core.numerics.calibrate.calibration import OUTPUT
from core.numerics.precision import Precision
from core.numerics.ranges import Site
from core.numerics.rounding import Range, round_weight
from core.numerics.scheme import NORMS, ONE_NORM, Scheme
from core.source.form import is_about_form
from core.source.operations import Stored, label_of
from core.source.trees import tensors

Visit = Callable[[Site, Tensor], Tensor]

FIRST = -2
"""Operation number of the first such call; -1 is the output of a module."""
GATE = 1
"""Operand number of the sigmoid by which SiLU multiplies what it takes."""

_IN_PLACE = frozenset(("add_", "mul_", "sub_", "div_", "relu_", "clamp_", "sigmoid_",
                       "__iadd__", "__imul__", "__isub__", "__itruediv__"))  # fmt: skip
_MOVES = frozenset((
    "view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "transpose", "permute",
    "movedim", "swapaxes", "t", "squeeze", "unsqueeze", "expand", "chunk", "split", "tensor_split",
    "unbind", "narrow", "select", "getitem", "contiguous", "clone", "detach", "get",
    "max_pool1d", "max_pool2d", "max_pool3d",
))  # fmt: skip
"""Functions that hand on what they take: Reshape, Transpose, Split, Slice, MaxPool and the like keep
the grid of their input. `get` is an attribute, such as T."""
_LIKE = frozenset(("zeros_like", "ones_like", "full_like", "empty_like"))


class Functions:
    """Rounds what a scheme says of such calls, each at its own site."""

    def __init__(self, scheme: Scheme, stored: Stored) -> None:
        self._scheme, self._stored = scheme, stored
        self._takes = frozenset(scheme.input_functions)
        self._gives = frozenset(scheme.output_functions)
        self._counts: dict[str, int] = {}
        self._entries: dict[str, int] = {}
        self._rounded: dict[int, tuple[weakref.ref[Tensor], str, int]] = {}
        self._grids: dict[int, tuple[weakref.ref[Tensor], int, Grid]] = {}
        self._constants: dict[int, weakref.ref[Tensor]] = {}
        self._taken: dict[tuple[str, int], weakref.ref[Tensor]] = {}
        self._others: dict[tuple[str, int], tuple[weakref.ref[Tensor], list[Site]]] = {}
        self.to_one: set[Site] = set()
        """Sites of softmax outputs that were recorded, where the scheme fixes their range."""

    def begin(self) -> None:
        """A pass begins."""
        self._counts.clear()
        self._entries.clear()
        self._rounded.clear()
        self._grids.clear()
        self._constants.clear()
        self._taken.clear()
        self._others.clear()

    def note(self, func: Callable[..., Any], args: Any, kwargs: Any, output: Any) -> None:
        """Take note of a call that has run: what it makes of constants alone is one, which an
        exporter works out beforehand, and a rounded value that is moved stays one.
        """
        if not (self._takes or self._gives):
            return
        given = tensors((args, kwargs))
        name = str(getattr(func, "__name__", ""))
        if all(map(self.is_constant, given)) or name.startswith("new_") or name in _LIKE:
            for tensor in tensors(output):
                self._constants[id(tensor)] = weakref.ref(tensor)
            return
        label = label_of(func)
        if not self._moved(label, given[0], output) and (
            name in _IN_PLACE or (name.endswith("_") and not name.endswith("__"))
        ):
            self._constants.pop(id(given[0]), None)  # it was written into
            if label not in self._gives:
                self._rounded.pop(id(given[0]), None)

    def _moved(self, label: str, value: Tensor, output: Any) -> bool:
        """Whether a function hands on `value`, which is rounded; then so is what it makes of it."""
        seen = self._seen(value) if label in _MOVES else None
        if seen is None:
            return False
        for tensor in tensors(output):
            self._rounded[id(tensor)] = (weakref.ref(tensor), *seen[1:])
        return True

    def is_constant(self, tensor: Tensor) -> bool:
        """Whether `tensor` is stored, or was made in this pass of nothing but what is."""
        found = self._constants.get(id(tensor))
        return (found is not None and found() is tensor) or self._stored.root(tensor) is not None

    def is_met(self, site: Site, ranges: Mapping[Site, Range]) -> bool:
        """Whether `ranges` know the call of `site`, so that an operand without one is a constant."""
        name, number, _ = site
        return number <= FIRST and any((name, number, k) in ranges for k in (OUTPUT, 0, 1))

    def gave(self, value: Tensor, name: str) -> bool:
        """Whether `value` is a rounded output, or part of one: where a scheme rounds outputs, a
        tensor is rounded once for all its readers.

        What layer `name` gave when it was called before does not count: a replay of the layer
        would not know.
        """
        found = self._seen(value)
        return found is not None and (found[1] != name or found[2] == self._entries.get(name, 0))

    def gave_itself(self, value: Tensor, name: str) -> bool:
        """Whether `value` is an output that layer `name` has rounded at another site."""
        found = self._seen(value)
        return found is not None and found[1] == name

    def rounded(self, value: Tensor, name: str) -> None:
        """Layer `name` has given `value`, which is rounded."""
        if self._gives:
            self._rounded[id(value)] = (weakref.ref(value), name, self._entries.get(name, 0))

    def round_to(self, value: Tensor, grid: Grid) -> Tensor:
        """`value` on `grid`: itself where it was laid on it in this pass and not changed since, as
        what one layer gives and the next takes in.
        """
        found = self._grids.get(id(value))
        if found is not None and found[0]() is value and found[1:] == (version(value), grid):
            return value
        rounded = round_to(value, grid)
        if not rounded.is_inference():  # whose changes in place nothing counts
            self._grids[id(rounded)] = (weakref.ref(rounded), version(rounded), grid)
        return rounded

    def _seen(self, value: Tensor) -> tuple[weakref.ref[Tensor], str, int] | None:
        found = self._rounded.get(id(value))
        return found if found is not None and found[0]() is value else None

    def entered(self, owner: Mapping[str, str | None], paths: Sequence[str]) -> None:
        """A module is entered, the last of `paths`: count anew where its layer begins.

        So a layer that is called again meets its own sites, in a full pass as in a replay.
        """
        layer = owner.get(paths[-1])
        around = owner.get(paths[-2]) if len(paths) > 1 else None
        if layer is not None and layer != around:
            self._counts[layer] = 0
            self._entries[layer] = self._entries.get(layer, 0) + 1

    def call(
        self, name: str, precision: Precision | None, func: Callable[..., Any],
        args: tuple[Any, ...], kwargs: Mapping[str, Any], visit: Visit, ranges: Mapping[Site, Range],
    ) -> Any:  # fmt: skip
        """`func`'s output with every activation that is rounded given to `visit`, which returns
        what to go on with. `precision` is None while ranges are recorded, `ranges` are those known.
        """
        label = label_of(func)
        takes, gives = label in self._takes, label in self._gives
        if is_about_form(func) or not (takes or self._gives):
            return func(*args, **kwargs)
        number = FIRST - self._counts.get(name, 0)
        self._counts[name] = self._counts.get(name, 0) + 1
        in_place = getattr(func, "__name__", "") in _IN_PLACE or kwargs.get("inplace", False)
        named = dict(kwargs)
        if all(map(self.is_constant, tensors((args, kwargs)))):
            return func(*args, **kwargs)
        look = self._taker(visit, recorded=precision is None)
        if not takes:
            look = self._bystander(visit, ranges, recorded=precision is None)
        args, named = self._inputs(name, number, label, args, named, look, in_place=in_place)
        if precision is not None and self._scheme.norm_weights and label in ONE_NORM:
            args, named = self._scales(label, precision, args, named)
        if label == "silu" and takes:  # runs as x * sigmoid(x)
            gate = visit((name, number, GATE), torch.sigmoid(args[0]))
            output = args[0].mul_(gate) if in_place else args[0] * gate
        else:
            output = func(*args, **named)
            self._moved(label, tensors((args, named))[0], output)
        if not gives or not isinstance(output, Tensor) or not output.is_floating_point():
            return output
        if label == "softmax" and self._scheme.softmax_to_one:
            self.to_one.add((name, number, OUTPUT))
        self._rounded.pop(id(output), None)  # a value that was changed in place is another now
        rounded = visit((name, number, OUTPUT), output)
        is_shared = in_place or any(output is tensor for tensor in tensors((args, named)))
        if is_shared and rounded is not output:
            rounded = output.copy_(rounded)
        self.rounded(rounded, name)
        return rounded

    def _taker(self, visit: Visit, *, recorded: bool) -> Visit:
        """`visit`, while ranges are recorded also for those who read the value otherwise."""

        def look(site: Site, value: Tensor) -> Tensor:
            key = site[0], id(value)
            if recorded:
                self._taken[key] = weakref.ref(value)
                reader, sites = self._others.pop(key, (None, []))
                for other in sites if reader is not None and reader() is value else ():
                    visit(other, value)
            return visit(site, value)

        return look

    def _bystander(self, visit: Visit, ranges: Mapping[Site, Range], *, recorded: bool) -> Visit:
        """`visit` for a function that rounds nothing itself, where it reads what another does."""

        def look(site: Site, value: Tensor) -> Tensor:
            if not recorded:
                return visit(site, value) if site in ranges else value
            key = site[0], id(value)
            taken = self._taken.get(key)
            if taken is not None and taken() is value:
                return visit(site, value)
            known = self._others.get(key)
            if known is None or known[0]() is not value:
                known = self._others[key] = (weakref.ref(value), [])
            known[1].append(site)
            return value

        return look

    def _inputs(
        self, name: str, number: int, label: str, args: tuple[Any, ...], kwargs: dict[str, Any],
        visit: Visit, *, in_place: bool,
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:  # fmt: skip
        """The arguments with every activation visited, in order, and constants where the scheme
        rounds them; those of a norm are another matter.
        """
        first = next(iter(tensors((args, kwargs))), None)
        place = 0

        def seen(value: Any) -> Any:
            nonlocal place
            if isinstance(value, list | tuple):
                return type(value)([seen(item) for item in value])
            if not isinstance(value, Tensor):
                return value
            place += 1
            if not value.is_floating_point():
                return value
            if self.is_constant(value) and not (
                self._scheme.rounds_constants
                and label not in NORMS
                and bool(torch.isfinite(value).all())  # else it is a mask
            ):
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
