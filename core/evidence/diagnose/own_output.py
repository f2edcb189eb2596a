"""The outputs of single layers, each with its own inputs as in the reference."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from core.engines.engine import Assignment
from core.engines.torch.engine import TorchEngine
from core.engines.torch.replay.replayer import OwnRuns, Replayer, same_bits
from core.engines.torch.simulate.folding import clipped, clips, seen_at
from core.engines.torch.simulate.simulator import Watch
from core.engines.variant import AS_USUAL, InputChannels, Variant
from core.layers import LayerTable
from core.numerics.precision import Precision
from core.numerics.ranges import Ranges, Site
from core.numerics.scheme import Scheme
from core.source.batches import Inputs, count, take
from core.source.trees import tensors

Outputs = dict[str, list[Tensor]]
"""Layer -> every floating tensor that its calls gave, in order."""


PILOT = 2
"""Samples of the pass that shows how the model is wired."""


class _Seen(BaseException):
    """The layer that is watched has run for the last time: no error, but nothing after it counts."""


Observe = Callable[[Site, Tensor, InputChannels | None], None]


class LayerOutputs(Protocol):
    """Tells what each layer itself gives, with the others and so its inputs as they are."""

    @property
    def ranges(self) -> Ranges:
        """The calibrated ranges."""
        ...

    @property
    def scheme(self) -> Scheme:
        """How integers are done."""
        ...

    def record(self, inputs: Inputs, observe: Observe) -> None:
        """Tell `observe` of every activation that the scheme may round, as it is."""
        ...

    def reference(self, inputs: Inputs) -> Outputs:
        """Own outputs of every layer in the reference precision on one batch."""
        ...

    def of(
        self, layer: str, precision: Precision, inputs: Inputs, variant: Variant = AS_USUAL
    ) -> list[Tensor]:
        """Own outputs of `layer` in `precision` on the batch that `reference` saw last; none where
        they cannot be seen.
        """
        ...


class OwnOutputs:
    """`LayerOutputs` of a PyTorch module, from passes of `simulator` and from its layers' modules alone."""

    def __init__(self, simulator: TorchEngine, layers: LayerTable) -> None:
        self.simulator = simulator
        self._replayer: Replayer | None = None
        self._again: OwnRuns | None = None
        self._reference: Outputs = {}
        self._replays: dict[str, bool] = {}
        self._seen_at = seen_at(layers)
        self._clips = clips(layers, simulator.scheme.rounds_outputs)
        self._calls: Mapping[str, int] = {}
        self._found: Outputs = {}
        self._ran: dict[str, int] = {}

    @property
    def ranges(self) -> Ranges:
        """The calibrated ranges."""
        return self.simulator.ranges

    @property
    def scheme(self) -> Scheme:
        """How integers are done."""
        return self.simulator.scheme

    def record(self, inputs: Inputs, observe: Observe) -> None:
        """Tell `observe` of every activation that the scheme may round, as it is."""
        self.simulator.record(inputs, observe)

    def reference(self, inputs: Inputs) -> Outputs:
        """Own outputs of every layer in the reference precision on one batch."""
        self._reference = self._run({}, inputs, AS_USUAL, None)
        self._calls, self._again = self._ran, None
        return self._reference

    def of(
        self, layer: str, precision: Precision, inputs: Inputs, variant: Variant = AS_USUAL
    ) -> list[Tensor]:
        """Own outputs of `layer` in `precision`, the others as they are, on the batch that
        `reference` saw last. What follows the last call of the layer is not run, and what comes
        before it not again where its modules alone give the reference's bits.
        """
        if self._can_replay(layer, inputs):
            found = self._run_again(layer, precision, variant)
            if found is not None:
                return found
        return self._run({layer: precision}, inputs, variant, layer).get(layer, [])

    def _can_replay(self, layer: str, inputs: Inputs) -> bool:
        """Whether the modules of `layer` alone gave, as they are, what the whole pass gave, on the
        first batch on which it was looked at.
        """
        if self._again is None:
            if self._replayer is None:
                self._replayer = self.simulator.replay(take(inputs, 0, PILOT))
            self._again = self._replayer.own_runs(inputs)
        if layer not in self._replays:
            found, before = self._run_again(layer, None, AS_USUAL), self._reference.get(layer, [])
            self._replays[layer] = (
                found is not None
                and len(found) == len(before)
                and all(map(same_bits, found, before))
            )
        return self._replays[layer]

    def _run_again(
        self, layer: str, precision: Precision | None, variant: Variant
    ) -> list[Tensor] | None:
        """Own outputs of `layer` from its modules alone; None where they did not run to the end."""
        assert self._again is not None
        self._found, self._ran = {}, {}
        with self.simulator.varying(variant, self._watcher(layer)), contextlib.suppress(_Seen):
            self._again.run(layer, precision)
        whole = self._ran.get(layer) == self._calls.get(layer)
        return self._found.get(layer) if whole else None

    def _run(
        self, assignment: Assignment, inputs: Inputs, variant: Variant, watched: str | None
    ) -> Outputs:
        self._found, self._ran = {}, {}
        with contextlib.suppress(_Seen):
            self.simulator.run(
                assignment, inputs, batch_size=count(inputs), variant=variant,
                watch=self._watcher(watched),
            )  # fmt: skip
        return self._found

    def _watcher(self, watched: str | None) -> Watch:
        """Keeps what modules give, of the layer `watched` or of all; stops behind its last call."""

        def watch(path: str, given: Any) -> None:
            name = self._seen_at.get(path)
            if name is None or watched not in {None, name}:
                return
            own = [t.detach().float().clone() for t in tensors(given) if t.is_floating_point()]
            self._found.setdefault(name, []).extend(
                clipped(t, self._clips[name]) if name in self._clips else t for t in own
            )
            self._ran[name] = self._ran.get(name, 0) + 1
            if watched == name and self._ran[name] == self._calls.get(name):
                raise _Seen

        return watch


def error_of(found: list[Tensor], reference: list[Tensor]) -> list[Tensor] | None:
    """What `found` differs by, call by call; None where the calls or shapes are others."""
    if [f.shape for f in found] != [r.shape for r in reference]:
        return None
    with torch.no_grad():
        return [f - r for f, r in zip(found, reference, strict=True)]
