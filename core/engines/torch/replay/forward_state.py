"""What a forward pass may leave behind: attributes of modules, and the random generators."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def random_state() -> tuple[Any, ...]:
    """The states of PyTorch's, Python's and NumPy's own generators."""
    numpys: Any = np.random.get_state(legacy=False)  # noqa: NPY002 (what a model might use)
    key, position = numpys["state"]["key"].tobytes(), numpys["state"]["pos"]
    runs: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda = torch.cuda.get_rng_state().numpy().tobytes() if runs else b""
    return torch.get_rng_state().numpy().tobytes(), cuda, random.getstate(), key, position


def attributes(model: nn.Module, alive: list[Any]) -> dict[str, tuple[Any, ...]]:
    """What the attributes of every module are, one level deep. Adds them to `alive`: the id of
    an object says nothing once it is gone.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            alive += [value, *_items(value)]
            found[f"{path}.{name}".lstrip(".")] = (id(value), *_content(value))
    return found


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | set | tuple) else ()


def _content(value: Any) -> Iterable[Any]:
    if isinstance(value, Tensor) and not value.is_inference():
        return (value._version,)  # noqa: SLF001
    if isinstance(value, Mapping):
        return tuple((key, id(item), *_content(item)) for key, item in value.items()
                     if not isinstance(item, Mapping))  # fmt: skip
    if isinstance(value, list | set | tuple):
        return tuple(id(item) for item in value)
    return (value,) if isinstance(value, bool | int | float | str) else ()


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The first attribute that differs, as a reason; "" if none does."""
    for name, value in after.items():
        if before.get(name) != value:
            return f"attribute {name!r} changes from pass to pass"
    return ""
