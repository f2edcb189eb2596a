"""Which layer the running code belongs to.

Module hooks keep a stack of the modules being executed; a torch function called at that moment
belongs to the layer that owns the innermost of them. The same bookkeeping serves the inventory,
the calibration and the simulation, so that the three always agree on whose operation it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from core.layers import ROOT, LayerTable
from core.source.contract import ModelSource
from core.source.roles import BUILT_IN_UNITS, OWN_LAYER_INSIDE_UNIT

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Entered = Callable[[str, nn.Module, tuple[Any, ...], dict[str, Any]], Arguments | None]
Left = Callable[[str, nn.Module, tuple[Any, ...], Any], Any]


def owners(model: nn.Module, units: tuple[str, ...], expand: bool = False) -> dict[str, str | None]:
    """Module path -> path of the layer that owns its operations; None for containers.

    Leaf modules own themselves; below a unit all but activation, dropout, norm and pooling
    modules belong to the unit. `expand` leaves the declared units out, so that their parts
    become layers. Shared modules appear once, under their first path.
    """
    declared = set() if expand else set(units)
    owner: dict[str, str | None] = {}
    for path, module in model.named_modules():
        parent = path.rpartition(".")[0] if path else None
        above = owner.get(parent) if parent is not None else None
        is_leaf = next(module.children(), None) is None
        inside_unit = above is not None and above in owner and owner[above] == above
        if inside_unit and not isinstance(module, OWN_LAYER_INSIDE_UNIT):
            owner[path] = above
        elif is_leaf or path in declared or isinstance(module, BUILT_IN_UNITS):
            owner[path] = path
        else:
            owner[path] = None
    return owner


def layer_owners(
    source: ModelSource, layers: LayerTable, *, expand_units: bool = False
) -> dict[str, str | None]:
    """`owners` of the model of `source` once its inventory `layers` is known: a container that
    turned out to compute on its own owns its operations too. The model itself is `ROOT`.
    """
    found = owners(source.model, source.units, expand_units)
    return found | {"" if name == ROOT else name: name for name in layers.names}


class ModuleStack:
    """The modules being executed, innermost last; a context manager that holds the hooks.

    `entered` may replace the arguments of a module, `left` its output.
    """

    def __init__(self, model: nn.Module, entered: Entered, left: Left) -> None:
        self._model = model
        self._entered = entered
        self._left = left
        self.paths: list[str] = []
        self._hooks: dict[int, list[tuple[nn.Module, Callable[..., Any], Callable[..., Any]]]] = {}

    @contextlib.contextmanager
    def installed(self, within: nn.Module | None = None) -> Iterator[None]:
        """Hooks on every module for the length of the block; the model is left as it was.

        With `within`, a module of the model, only on it and what is below it.
        """
        handles = []
        try:
            for module, enter, leave in self._hooks_of(self._model if within is None else within):
                handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
                handles.append(module.register_forward_hook(leave, always_call=True))
            yield
        finally:
            for handle in handles:
                handle.remove()
            self.paths.clear()

    def _hooks_of(
        self, within: nn.Module
    ) -> list[tuple[nn.Module, Callable[..., Any], Callable[..., Any]]]:
        """Modules with their hooks, which know the path in the model at which one is met first."""
        if id(within) not in self._hooks:
            inside = {id(module) for module in within.modules()}
            self._hooks[id(within)] = [
                (module, self._enter(path), self._leave(path))
                for path, module in self._model.named_modules()
                if id(module) in inside
            ]
        return self._hooks[id(within)]

    def _enter(self, path: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            self.paths.append(path)
            return self._entered(path, module, args, kwargs)

        return hook

    def _leave(self, path: str) -> Callable[[nn.Module, tuple[Any, ...], Any], Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            if self.paths:
                self.paths.pop()
            return self._left(path, module, args, output)

        return hook
