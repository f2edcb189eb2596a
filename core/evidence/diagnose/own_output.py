"""The outputs of single layers, each with its own inputs as in the reference."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from core.engines.engine import Assignment
from core.engines.torch.simulate.folding import clipped, clips, seen_at
from core.engines.torch.simulate.simulator import Simulator
from core.engines.variant import AS_USUAL, InputChannels, Variant
from core.layers import LayerTable
from core.numerics.precision import Precision
from core.numerics.ranges import Ranges, Site
from core.numerics.scheme import Scheme
from core.source.batches import Inputs, count
from core.source.trees import tensors

Outputs = dict[str, list[Tensor]]
"""Layer -> every floating tensor that its calls gave, in order."""


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
    """`LayerOutputs` of a PyTorch module, from passes of `simulator`."""

    def __init__(self, simulator: Simulator, layers: LayerTable) -> None:
        self.simulator = simulator
        self._seen_at = seen_at(layers)
        self._clips = clips(layers, simulator.scheme.rounds_outputs)
        self._calls: Mapping[str, int] = {}

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
        found = self._run({}, inputs, AS_USUAL, None)
        self._calls = self._ran
        return found

    def of(
        self, layer: str, precision: Precision, inputs: Inputs, variant: Variant = AS_USUAL
    ) -> list[Tensor]:
        """Own outputs of `layer` in `precision`, the others as they are, on the batch that
        `reference` saw last. What follows the last call of the layer is not run.
        """
        return self._run({layer: precision}, inputs, variant, layer).get(layer, [])

    def _run(
        self, assignment: Assignment, inputs: Inputs, variant: Variant, watched: str | None
    ) -> Outputs:
        self._found: Outputs = {}
        self._ran: dict[str, int] = {}

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

        with contextlib.suppress(_Seen):
            self.simulator.run(
                assignment, inputs, batch_size=count(inputs), variant=variant, watch=watch
            )
        return self._found


def error_of(found: list[Tensor], reference: list[Tensor]) -> list[Tensor] | None:
    """What `found` differs by, call by call; None where the calls or shapes are others."""
    if [f.shape for f in found] != [r.shape for r in reference]:
        return None
    with torch.no_grad():
        return [f - r for f, r in zip(found, reference, strict=True)]
