"""Tensors inside whatever a model takes or returns: tuples, lists, dicts and dataclasses."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

MAX_DEPTH = 16
"""Deeper nesting is no input of a model, and may be a structure that holds itself."""


def named_tensors(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in `value` with where it stands, as "[0].mask"; in a fixed order."""
    if isinstance(value, Tensor):
        yield path, value
        return
    if depth > MAX_DEPTH:
        return
    for name, item in _children(value):
        yield from named_tensors(item, path + name, depth + 1)


def tensors(value: Any) -> list[Tensor]:
    """Every tensor in `value`, in a fixed order."""
    return [tensor for _, tensor in named_tensors(value)]


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor in a possibly nested output or argument list."""
    return next((tensor for _, tensor in named_tensors(value)), None)


def holds_rows(value: Any) -> bool:
    """Whether what a module is given holds anything; without any tensor it may compute all the
    same.
    """
    found = tensors(value)
    return not found or any(tensor.numel() for tensor in found)


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield f"[{key!r}]", item
    elif isinstance(value, tuple | list):
        names = getattr(value, "_fields", None)
        for i, item in enumerate(value):
            yield f".{names[i]}" if names else f"[{i}]", item
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield f".{field.name}", getattr(value, field.name, None)


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`value` with every tensor replaced by `change` of it; `value` itself where none changes.

    Does not change `value`.
    """
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        items = {key: map_tensors(item, change) for key, item in value.items()}
        if all(items[key] is value[key] for key in items):
            return value
        if type(value) is dict:
            return items
        changed = copy.copy(value)
        for key, item in items.items():
            changed[key] = item  # type: ignore[index]
        return changed
    if isinstance(value, tuple | list):
        mapped = [map_tensors(item, change) for item in value]
        if all(new is old for new, old in zip(mapped, value, strict=True)):
            return value
        if hasattr(value, "_fields"):
            return type(value)(*mapped)
        return type(value)(mapped)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        fresh = {name: map_tensors(item, change) for name, item in found.items()}
        if all(fresh[name] is found[name] for name in fresh):
            return value
        return dataclasses.replace(value, **fresh)
    return value
