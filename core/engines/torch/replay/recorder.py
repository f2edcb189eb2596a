"""Recording the torch functions of one forward pass.

The recorder sees what the simulator sees: module hooks say whose operation it is, a
torch-function mode hands over every torch function. It changes nothing of what is computed.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from core.engines.torch.replay.forward_state import random_state
from core.engines.torch.replay.recording import (  # fmt: skip
    ABOUT_TYPE,
    PLAIN,
    Call,
    Form,
    Recording,
    Region,
    Slot,
    leaves,
    module_name,
    rebuild,
    slots_in,
    tensors_in,
    version,
)
from core.source.form import ABOUT_LAYOUT, is_about_form
from core.source.operations import COMPOSITES, as_separate_operands


class Recorder(TorchFunctionMode):
    """Watches one forward pass and keeps the values in `keep`.

    `owner` maps module paths to layers, `layers` names those that may change their precision,
    `counts` says which calls the simulator numbers within a layer.
    `keep` are slots whose values are wanted, `copies` slots to copy before call i changes their
    memory; both come from an earlier recording of the same wiring. With `hold` every value stays
    alive until the recorder goes, so that no memory is used twice (for small inputs).
    """

    def __init__(
        self,
        model: nn.Module,
        owner: Mapping[str, str | None],
        layers: AbstractSet[str],
        counts: Callable[[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], bool],
        *,
        keep: AbstractSet[int] = frozenset(),
        copies: Mapping[int, tuple[int, ...]] | None = None,
        hold: bool = False,
    ) -> None:
        super().__init__()
        self.kept: dict[int, Tensor] = {}
        self.refusal, self._took, self._asks_layout = "", 0.0, False
        self._model, self._owner, self._layers, self._is_counted = model, owner, layers, counts
        self._keep, self._copies = keep, copies or {}
        self._held: list[Tensor] | None = [] if hold else None
        self._calls: list[Call] = []
        self._regions: list[Region] = []
        self._forms: list[Form] = []
        self._sizes: list[int] = []
        self._storages: list[int] = []
        self._seconds: list[float] = []
        self._known: dict[int, tuple[weakref.ref[Tensor], int, int]] = {}
        self._constants: dict[int, Tensor] = {}  # parameters, buffers
        self._counts: dict[str, int] = {}
        self._random: tuple[Any, ...] = ()
        self._paths: list[str] = []
        self._open: list[tuple[str | None, dict[str, Any] | None]] = []

    def record(self, run: Callable[[], Tensor]) -> tuple[Recording, Tensor]:
        """Run `run`, which calls the model once and returns its output; the recording and the output.

        `refusal` says afterwards why the recording cannot stand for the model ("" = it can, as far
        as a recording shows).
        """
        with torch.no_grad(), self._hooks(), self:
            output = run()
        slot = self._slot(output)
        return (
            Recording(
                tuple(self._calls),
                tuple(sorted(self._regions, key=lambda r: (r.start, -r.stop))),
                tuple(self._forms),
                tuple(self._sizes),
                tuple(self._storages),
                tuple(self._seconds),
                -1 if slot is None else slot,
                self._asks_layout,
            ),
            output,
        )

    # ---- modules

    @contextlib.contextmanager
    def _hooks(self) -> Iterator[None]:
        handles: list[Any] = []
        try:
            for path, module in self._model.named_modules():
                enter, leave = self._enter(path), self._leave(path)
                handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
                handles.append(module.register_forward_hook(leave, always_call=True))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, path: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            layer = self._owner.get(path)
            around = self._open[-1][0] if self._open else None
            started = None
            if layer is not None and layer != around and layer in self._layers:
                self._check_plain(path, "is given", (args, kwargs))
                started = {
                    "layer": layer,
                    "path": path,
                    "module": module,
                    "start": len(self._calls),
                    "count": self._counts.get(layer, 0),
                    "args": rebuild(args, self._template),
                    "kwargs": rebuild(kwargs, self._template),
                    "before": len(self._forms),
                }
            if not self._paths:
                self._random = random_state()
            self._paths.append(path)
            self._open.append((layer, started))

        return hook

    def _leave(self, path: str) -> Callable[[nn.Module, tuple[Any, ...], Any], Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            if not self._open:
                return None
            self._paths.pop()
            if not self._paths and random_state() != self._random:
                self.refuse("it draws random numbers")
            _, started = self._open.pop()
            if started is None:
                return None
            self._check_plain(path, "returns", output)
            before = started.pop("before")
            fresh = self._separated(output, before)
            template = rebuild(fresh, self._template)
            self._regions.append(
                Region(
                    **started,
                    stop=len(self._calls),
                    reads=slots_in((started["args"], started["kwargs"])),
                    leaves=tuple(leaves(template)),
                )
            )
            return fresh

        return hook

    def _separated(self, output: Any, before: int) -> Any:
        """`output` with an alias for each tensor that is older than slot `before`.

        A module that hands back what it was given would otherwise not be told from its input.
        """
        aliases: dict[int, Tensor] = {}

        def separated(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor) or isinstance(leaf, nn.Parameter):
                return leaf
            if self._first_slot(leaf) >= before:
                return leaf
            if id(leaf) not in aliases:
                given = (self._template(leaf),)
                with torch._C.DisableTorchFunction():  # noqa: SLF001 (not the model's own call)
                    aliases[id(leaf)] = leaf.detach()
                    self._append(Tensor.detach, given, {}, aliases[id(leaf)], [])
            return aliases[id(leaf)]

        return rebuild(output, separated)

    def _check_plain(self, path: str, verb: str, value: Any) -> None:
        for leaf in leaves(value):
            if not isinstance(leaf, PLAIN):
                kind = type(leaf).__name__
                self.refuse(f"module {path!r} {verb} a {kind}, whose tensors cannot be followed")

    def refuse(self, reason: str) -> None:
        """Keep the first reason why the recording cannot stand for the model."""
        self.refusal = self.refusal or reason

    # ---- values

    def _slot(self, tensor: Tensor) -> int | None:
        found = self._known.get(id(tensor))
        return found[1] if found is not None and found[0]() is tensor else None

    def _first_slot(self, tensor: Tensor) -> int:
        """The slot of `tensor` before it was changed in place; -1 if it is none of this pass."""
        found = self._known.get(id(tensor))
        return found[2] if found is not None and found[0]() is tensor else -1

    def _template(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        slot = self._slot(leaf)
        if slot is None:
            self._constants[id(leaf)] = leaf
            return leaf
        return Slot(slot)

    def _is_constant(self, tensor: Tensor) -> bool:
        storage = tensor.untyped_storage().data_ptr()
        return any(c.untyped_storage().data_ptr() == storage for c in self._constants.values())

    def _new_slot(self, tensor: Tensor) -> int:
        slot = len(self._forms)
        first = self._first_slot(tensor)
        self._known[id(tensor)] = (weakref.ref(tensor), slot, slot if first < 0 else first)
        storage = tensor.untyped_storage()  # sparse and batched tensors have none: not recorded
        self._storages.append(storage.data_ptr())
        self._sizes.append(storage.nbytes())
        self._forms.append((tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype))
        if self._held is not None:
            self._held.append(tensor)
        if slot in self._keep:
            self.kept[slot] = tensor
        return slot

    # ---- functions

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
        if func is Tensor.__iter__:
            with self:
                return iter(args[0].unbind(0))
        self.kept |= {s: self.kept[s].clone() for s in self._copies.get(len(self._calls), ())}
        given = [(t, version(t)) for t in tensors_in((args, kwargs))]
        # The arguments are looked up before the call, which may change them in place.
        templates = rebuild(args, self._template), rebuild(dict(kwargs), self._template)
        name = self._owner.get(self._paths[-1]) if self._paths else None
        if name is not None and self._is_counted(func, args, kwargs):
            self._counts[name] = self._counts.get(name, 0) + 1
        start = time.thread_time()
        output = func(*args, **kwargs)
        self._took = time.thread_time() - start
        written = {id(t): t for t, before in given if version(t) != before}
        if not written and any(output is t for t, _ in given):
            # As contiguous() may do: no value is made. Whether it would be is a matter of form.
            self._asks_layout |= getattr(func, "__name__", "") not in ABOUT_TYPE
        else:
            self._append(func, *templates, output, list(written.values()))
        return output

    def _append(
        self, func: Callable[..., Any], args: Any, kwargs: Any, output: Any, written: list[Tensor]
    ) -> None:
        path = self._paths[-1] if self._paths else ""
        name = getattr(func, "__name__", str(func))
        self._asks_layout |= name in ABOUT_LAYOUT
        value_read = ""
        if not is_about_form(func) and any(
            leaf is not None and not isinstance(leaf, Tensor) for leaf in leaves(output)
        ):
            value_read = name
        if any(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")):
            self.refuse(f"{module_name(path)} runs under autocast")
        made, reads = tensors_in(output), slots_in((args, kwargs))
        if not made and not written and not value_read:
            return
        writes = []
        for tensor in written:
            slot = self._slot(tensor)
            if slot is None or self._is_constant(tensor):
                self.refuse(f"{module_name(path)} writes into a parameter or a buffer")
                continue
            writes.append((slot, self._new_slot(tensor)))
        changed = {id(tensor) for tensor in written}
        makes = tuple((self._slot(t) or 0) if id(t) in changed else self._new_slot(t) for t in made)
        self._seconds.append(self._took)
        self._took = 0.0
        self._calls.append(Call(func, args, kwargs, reads, makes, tuple(writes), path, value_read))
