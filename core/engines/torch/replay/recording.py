"""A recording: the torch functions of one forward pass, with what each reads and makes.

Values are numbered slots. A call that is run again with the values of the slots it read makes
what it made before, so that a part of a pass can be repeated without the model's own code. How
recordings are recorded is in `record`, which part of one a layer needs in `dependents`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Form = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]
"""Shape, strides and type of a value."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Stands for the value numbered `index` in the arguments of a call."""

    index: int


@dataclass(frozen=True, slots=True)
class Call:
    """One torch function.

    `args` and `kwargs` hold slots where they held values of this pass; other tensors
    (parameters, buffers, inputs) are kept as they are. `reads` and `makes` are slots in order of
    appearance. `writes` pairs the slot of a value before and after it was changed in place.
    `value_read` names a function that hands a tensor's content to Python ("" = none).
    """

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    reads: tuple[int, ...]
    makes: tuple[int, ...]
    writes: tuple[tuple[int, int], ...] = ()
    path: str = ""
    value_read: str = ""


@dataclass(frozen=True, slots=True)
class Region:
    """One run of a module that belongs to `layer`: calls [start, stop) of the recording.

    `count` is the number of operations the layer had run before. `makes` are the slots among
    the leaves of its output; `leaves` are all of them, slots and other things.
    """

    layer: str
    path: str
    module: nn.Module
    start: int
    stop: int
    count: int
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    reads: tuple[int, ...]
    leaves: tuple[Any, ...]

    @property
    def makes(self) -> tuple[int, ...]:
        """Slots of the module's output."""
        return slots_in(self.leaves)


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded pass. `forms`, `sizes` (bytes) and `storages` are per slot.

    Slots that share a storage are views of the same memory. `seconds` is the processor
    time that each call took.
    `output` is the slot of the model's output, -1 where the output is no value of this pass.
    `asks_layout` tells that the model's code looked at how a tensor lies in memory.
    """

    calls: tuple[Call, ...]
    regions: tuple[Region, ...]
    forms: tuple[Form, ...]
    sizes: tuple[int, ...]
    storages: tuple[int, ...]
    seconds: tuple[float, ...]
    output: int
    asks_layout: bool

    @property
    def storage_sizes(self) -> dict[int, int]:
        """Bytes of each storage."""
        return dict(zip(self.storages, self.sizes, strict=True))

    def counts_within(self, region: Region) -> dict[str, int]:
        """Layer -> operations that it has run before `region`, of those that run in it."""
        inside = [r for r in self.regions if region.start <= r.start and r.stop <= region.stop]
        return {r.layer: r.count for r in reversed(inside)} | {region.layer: region.count}

    def wiring(self) -> tuple[Any, ...]:
        """What must be equal for two recordings to be the same program on other values."""
        return (
            tuple((c.func, c.reads, c.makes, c.writes) for c in self.calls),
            tuple((r.path, r.start, r.stop, r.count, r.reads, r.makes) for r in self.regions),
            self.output,
            self.asks_layout,
        )


_SCALARS = frozenset((Tensor, nn.Parameter, int, float, bool, type(None), slice, str))


def leaves(value: Any) -> Iterator[Any]:
    """Everything in `value` that is no tuple, list or dict, in order."""
    if type(value) in _SCALARS:
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from leaves(item)
    else:
        yield value


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors of a nested argument list or output, in order."""
    if type(value) is Tensor:
        return [value]
    return [leaf for leaf in leaves(value) if isinstance(leaf, Tensor)]


def slots_in(value: Any) -> tuple[int, ...]:
    """The slots of a nested template, in order."""
    return tuple(leaf.index for leaf in leaves(value) if type(leaf) is Slot)


def rebuild(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` with every leaf replaced by `change(leaf)`; containers keep their type.

    A container in which nothing changes is returned as it is.
    """
    if type(value) in _SCALARS:
        return change(value)
    if isinstance(value, tuple | list):
        items = [rebuild(item, change) for item in value]
        if all(a is b for a, b in zip(items, value, strict=True)):
            return value
        kind: Any = type(value)
        if hasattr(value, "_fields"):  # a named tuple, whose own constructor may want tensors
            return tuple.__new__(kind, items)
        return kind(items)
    if isinstance(value, Mapping):
        found = {key: rebuild(item, change) for key, item in value.items()}
        return value if all(found[k] is value[k] for k in found) else found
    return change(value)


def filled(template: Any, values: Sequence[Any]) -> Any:
    """`template` with every slot replaced by its value."""
    kind = type(template)
    if kind is Slot:
        return values[template.index]
    if kind is tuple or kind is list:
        return kind([
            values[item.index] if type(item) is Slot
            else item if type(item) in _SCALARS else filled(item, values)
            for item in template
        ])  # fmt: skip
    if kind is dict:
        return {key: filled(item, values) for key, item in template.items()}
    if kind in _SCALARS:
        return template
    if isinstance(template, tuple | list | Mapping):
        return rebuild(template, lambda x: values[x.index] if type(x) is Slot else x)
    return template


ABOUT_TYPE = frozenset(("float", "double", "half", "bfloat16", "type_as"))
"""Functions that may hand back what they were given, whatever its layout."""

PLAIN = (Tensor, bool, int, float, complex, str, bytes, type(None), slice, range, torch.dtype,
         torch.device, torch.layout, torch.memory_format, torch.Generator)  # fmt: skip
"""What may be given to a module or returned by it beside containers: no tensor hides in it."""


def version(tensor: Tensor) -> int:
    """Changes when `tensor` is written to; tensors made under inference mode do not count."""
    return -1 if tensor.is_inference() else int(tensor._version)  # noqa: SLF001


def module_name(path: str) -> str:
    """The module at `path`, for a sentence."""
    return f"module {path!r}" if path else "the model itself"


def live_bytes(recording: Recording) -> int:
    """Bytes alive at once in a pass, where a value lives until it is read for the last time."""
    size = recording.storage_sizes
    last: dict[int, int] = {}
    for i, call in enumerate(recording.calls):
        for slot in (*call.reads, *call.makes):
            last[recording.storages[slot]] = i
    if recording.output >= 0:
        last[recording.storages[recording.output]] = len(recording.calls)
    ends: dict[int, list[int]] = {}
    for storage, i in last.items():
        ends.setdefault(i, []).append(storage)
    alive: set[int] = set()
    now = peak = 0
    for i, call in enumerate(recording.calls):
        for slot in call.makes:
            if recording.storages[slot] not in alive:
                alive.add(recording.storages[slot])
                now += size[recording.storages[slot]]
        peak = max(peak, now)
        for storage in ends.get(i, ()):
            if storage in alive:
                alive.remove(storage)
                now -= size[storage]
    return peak
