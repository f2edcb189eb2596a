"""Running a model with chosen layers in another precision, by rounding what they touch.

Integers: operands of products and convolutions are rounded to the scheme's grids and the
product is taken in float32, which equals the integer kernel up to the order of summation
(Jacob et al. 2018, arXiv:1712.05877). Half precision: weights and every result of a layer are
rounded to the format while sums stay in float32, as tensor cores do. Weights alone: those of matrix
products are rounded by groups, and everything is computed in float32.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.engines.engine import Assignment
from core.engines.torch.replay.recording import version
from core.engines.torch.simulate.dynamic import COPIES, is_same, sample_axis
from core.engines.torch.simulate.operations import Observe, Operations
from core.engines.torch.simulate.stored_weights import cast, give_back
from core.engines.variant import AS_USUAL, Variant
from core.errors import ModelError
from core.layers import ROOT, LayerTable
from core.numerics.calibrate.calibrators import MIN_MAX, Calibrator
from core.numerics.calibrate.choose import Observed
from core.numerics.precision import INT8_DYNAMIC, Precision
from core.numerics.ranges import MODULE_OUTPUT, Site
from core.numerics.rounding import Range
from core.numerics.scheme import Scheme
from core.source.batches import (
    Inputs,
    Output,
    count,
    failed,
    fused_attention_off,
    pick,
    run_batch,
    sizes_differ,
    state_kept,
    take,
)
from core.source.operations import COMPOSITES, as_separate_operands, operand, recognise
from core.source.ownership import Arguments, ModuleStack
from core.source.trees import map_tensors, tensors

SAMPLES_SEEN = 3
Watch = Callable[[str, Any], None]
"""Is told the path of each module that has run ("" = the model itself), and what it gave."""


class Simulator(Operations):
    """A model whose layers can be put into any precision, one assignment at a time.

    Does not change the model. `calibrate` must run before an integer assignment. Batch b of
    every run meets the same random state, so that a model which draws random numbers differs
    from its reference only by the assignment.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: LayerTable,
        owner: Mapping[str, str | None],
        scheme: Scheme,
        output: Output = None,
        calibrator: Calibrator = MIN_MAX,
    ) -> None:
        super().__init__(model, layers, scheme, calibrator)
        self._output = output
        self.owner = self._folding.owners(owner)
        self.varied = tuple(layer.name for layer in layers if layer.computes_at_inference)
        self._rounded_modules = {
            layer.name
            for layer in layers
            if (layer.state == "rounds output" and layer.role != "glue") or layer.role == "pooling"
        }
        self._glue = {layer.name for layer in layers if layer.role == "glue"}
        self._silent = {layer.name for layer in layers if layer.state == "nothing"}
        self._stack = ModuleStack(model, self._entered, self._left)
        self._assignment: Assignment = {}
        self._watch: Watch | None = None
        self._counts: dict[str, int] = {}
        self._calls: dict[str, set[int]] = {}
        """Layer -> numbers of products that batches ran of it while they were observed."""
        self._given: list[tuple[Arguments | None, list[int]]] = []

    # ---- public

    def calibrate(self, inputs: Inputs, batch_size: int = 64) -> None:
        """Find the range of every activation that the scheme may round."""
        self.ranges = observed = Observed(self.calibrator, self.scheme)
        self._calls.clear()
        self.record(inputs, lambda site, value, *_: observed.observe(site, value), batch_size)
        observed.settle()
        self._pool()
        observed.update(dict.fromkeys(self._functions.to_one, Range(0.0, 1.0)))

    def _pool(self) -> None:
        """One range for all calls of a layer whose number of calls depends on the samples: which
        of them is which says nothing.
        """
        for name in self._one_product & {n for n, seen in self._calls.items() if len(seen) > 1}:
            sites = [site for site in self.ranges if site[0] == name and site[1] >= 0]
            for site in sites:
                seen = self.ranges.pop(site)
                first = (name, 0, site[2])
                known = self.ranges.get(first)
                self.ranges[first] = seen if known is None or site == first else known.merge(seen)

    def record(self, inputs: Inputs, observe: Observe, batch_size: int = 64) -> None:
        """Tell `observe` of every activation that the scheme may round, in the model as it is."""
        self._observe = lambda site, value, *rest: (
            observe(site, value, *rest) if value.numel() else None
        )
        try:
            for _ in self._forward({}, inputs, batch_size):
                pass
        finally:
            self._observe = None

    def run(
        self, assignment: Assignment, inputs: Inputs, batch_size: int = 100, first: int = 0,
        *, variant: Variant = AS_USUAL, watch: Watch | None = None,
    ) -> NDArray[np.float32]:  # fmt: skip
        """Outputs [N, K] of the model with `assignment` applied to `inputs` of N samples.

        `first` is the number of the first sample: what it was in all the inputs if these are a
        part of them, so that the part meets the same random state. `variant` says how layers in
        integers are rounded, `watch` is told what every module gives. Raises `ModelError` where
        the model fails, or reaches an operation that no calibration sample reached.
        """
        with self.varying(variant, watch):
            return np.concatenate(list(self.run_batches(assignment, inputs, batch_size, first)))

    @contextlib.contextmanager
    def varying(self, variant: Variant, watch: Watch | None) -> Iterator[None]:
        """Layers in integers are rounded as `variant` says, and `watch` is told what modules give."""
        self._variant, self._watch = variant, watch
        try:
            yield
        finally:
            self._variant, self._watch = AS_USUAL, None

    def run_batches(
        self, assignment: Assignment, inputs: Inputs, batch_size: int = 100, first: int = 0
    ) -> Iterator[NDArray[np.float32]]:
        """The outputs that `run` gives, batch by batch, so that not all of them need be held."""
        active = {
            name: precision
            for name, precision in assignment.items()
            if precision.float_dtype != "float32" and name not in self._silent
        }
        self.find_samples(active.values(), inputs, first)
        return self._forward(active, inputs, batch_size, first)

    def find_samples(self, precisions: Iterable[Precision], inputs: Inputs, first: int = 0) -> None:
        """See once where samples lie in what products take in, if one of `precisions` asks for it."""
        if self._lie is None and any(p.is_dynamic for p in precisions):
            self._see(inputs, first)

    def samples_apart(self, inputs: Inputs) -> bool:
        """Whether samples give one by one what they give in a batch."""
        if self._lie is None:
            self._see(inputs, 0)
        return self._apart

    def _see(self, inputs: Inputs, first: int) -> None:
        """Run some of `inputs` together, and one by one."""
        samples = min(count(inputs), SAMPLES_SEEN)
        if samples < 2:
            return
        self._lie, self._apart = {}, False
        try:
            together, outputs = self._sighted(take(inputs, 0, samples), first)
            alone = [self._sighted(pick(inputs, np.full(COPIES, i)), first) for i in range(samples)]
        except ModelError:  # it does not run single samples
            return
        self._apart = is_same(torch.cat([values[:1] for _, values in alone]), outputs)
        if self._apart:
            self._lie = {
                site: sample_axis(value, [one[site] for one, _ in alone])
                for site, value in together.items()
                if all(site in one for one, _ in alone)
            }

    def _sighted(self, inputs: Inputs, first: int) -> tuple[dict[Site, Tensor], Tensor]:
        """What products with matrices take in, in the model as it is, and its outputs."""
        found: dict[Site, Tensor] = {}
        watch, self._watch, self._sights = self._watch, None, found
        try:
            everywhere = dict.fromkeys(self._packs_products - self._dynamic, INT8_DYNAMIC)
            (outputs,) = self._forward(everywhere, inputs, count(inputs), first)
        finally:
            self._watch, self._sights = watch, None
        return found, torch.from_numpy(outputs)

    def counts(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> bool:
        """Whether this call is an operation, which is numbered within its layer."""
        return recognise(func, args, kwargs, self._stored) is not None

    def answer(self, batch: Inputs, first: int) -> Tensor:
        """The model's outputs [N, K] for one batch, whatever this simulator is set to."""
        self._samples = count(batch)
        return run_batch(self.model, batch, self._output, seed=first)

    def run_module(
        self, assignment: Assignment, module: nn.Module, args: tuple[Any, ...],
        kwargs: Mapping[str, Any], counts: Mapping[str, int],
    ) -> Any:  # fmt: skip
        """The output of one module of the model, as in a pass that has come this far.

        `counts` are the operations that each layer has run before.
        """
        self._assignment = assignment
        self._counts = dict(counts)
        self._functions.begin()
        self._given.clear()
        hooks = self._stack.installed(module)
        with torch.no_grad(), state_kept(module), fused_attention_off(), hooks, self:
            return module(*args, **kwargs)

    # ---- the pass

    def _forward(
        self, assignment: Assignment, inputs: Inputs, batch_size: int, first: int = 0
    ) -> Iterator[NDArray[np.float32]]:
        self._assignment = assignment
        total, width = count(inputs), None
        with state_kept(self.model):
            for start in range(0, total, batch_size):
                self._counts.clear()
                self._functions.begin()
                self._given.clear()
                batch = take(inputs, start, start + batch_size)
                try:
                    with torch.no_grad(), self._stack.installed(), self:
                        found = self.answer(batch, first + start).numpy()
                except Exception as error:
                    stop = min(start + batch_size, total) - 1
                    where = f"on samples {first + start} to {first + stop}"
                    raise failed(error, where, "those samples") from error
                if self._observe is not None:
                    for name, number in self._counts.items():
                        self._calls.setdefault(name, set()).add(number)
                if width not in (None, found.shape[1]):
                    raise sizes_differ()
                width = found.shape[1]
                yield found

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        args = as_separate_operands(func, args)
        if func in COMPOSITES:
            with self:
                return COMPOSITES[func](*args, **kwargs)
        output = self._call(func, args, kwargs)
        self._functions.note(func, args, kwargs, output)
        return output

    def _call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        path = self._stack.paths[-1] if self._stack.paths else None
        name = self.owner.get(path) if path is not None else None
        if name is None:
            return func(*args, **kwargs)
        operation = recognise(func, args, kwargs, self._stored)
        if operation is None:
            precision = self._assignment.get(name)
            if self._folding.is_done(func, path):
                return func(*args, **kwargs) if precision is None else args[0].clone()
            if precision is not None and precision.is_cast:
                return self._float_function(precision, func, args, kwargs)
            if precision is not None and not precision.is_calibrated:
                return func(*args, **kwargs)  # it rounds what products take, and nothing else
            if self._observe is not None or precision is not None:
                return self._other_function(name, precision, func, args, kwargs)
            return func(*args, **kwargs)
        number = self._counts.get(name, 0)
        self._counts[name] = number + 1
        if self._observe is not None:
            return self._record(name, number, operation, func, args, kwargs, self._observe)
        precision = self._assignment.get(name)
        if precision is None:
            return func(*args, **kwargs)
        args, kwargs = self._folding.operands(operation, args, kwargs)
        if precision.is_cast:
            slots = (operation.weight, operation.bias)
            held = [id(operand(slot, args, kwargs)) for slot in slots if slot]
            return self._float_function(precision, func, args, kwargs, frozenset(held))
        if precision.is_weights_only:
            return self._weights_operation(name, operation, precision, func, args, kwargs)
        if precision.is_scaled:
            return self._scaled_operation(name, number, operation, precision, func, args, kwargs)
        if precision.is_dynamic:
            return self._dynamic_operation(name, number, operation, precision, func, args, kwargs)
        return self._integer_operation(name, number, operation, precision, func, args, kwargs)

    def _entered(
        self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments | None:
        name = path or ROOT
        precision = self._assignment.get(name)
        self._functions.entered(self.owner, self._stack.paths)
        versions: list[int] = []
        if name in self._rounded_modules:
            with torch._C.DisableTorchFunction():  # noqa: SLF001 (not the model's own calls)
                versions = [version(value) if isinstance(value, Tensor) else 0 for value in args]
        # Glue hands values on to the layers below it: what it computes itself is rounded, no more.
        is_cast = precision is not None and precision.is_cast and name not in self._glue
        self._given.append(((args, kwargs) if is_cast else None, versions))
        if precision is None or not is_cast:
            return None
        given: Arguments = map_tensors((args, kwargs), lambda tensor: cast(tensor, precision))
        return given

    def _left(self, path: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        with torch._C.DisableTorchFunction():  # noqa: SLF001 (not the model's own calls)
            changed = self._output_of(path, args, output)
        if self._watch is not None:
            self._watch(path, output if changed is None else changed)
        return changed

    def _output_of(self, path: str, args: tuple[Any, ...], output: Any) -> Any:
        """The output of a module, rounded where its layer's is; None where it stays as it is."""
        given, before = self._given.pop() if self._given else (None, [])
        if given is not None:
            give_back(given[0], args)
        name = path or ROOT
        if name not in self._rounded_modules:
            return None
        values = [tensor for tensor in tensors(output) if tensor.is_floating_point()]
        if not values:
            return None
        site: Site = (name, *MODULE_OUTPUT)
        if self._observe is not None:
            if not self._functions.gave_itself(values[0], name):
                self._observe(site, values[0], None)
            return None
        precision = self._assignment.get(name)
        if precision is None or not precision.is_calibrated:
            return None
        rounded = self._rounded(site, values[0])
        now = version(values[0])
        if any(a is values[0] and v != now for a, v in zip(args, before, strict=False)):
            values[0].copy_(rounded)  # it works in place: others hold the value too
            self._functions.rounded(values[0], name)
            return None
        return map_tensors(output, lambda tensor: rounded if tensor is values[0] else tensor)
