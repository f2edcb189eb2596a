"""The outputs of single layers, each with its own inputs as in the reference."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from core.engines.torch.simulate.folding import clipped, clips, seen_at
from core.engines.torch.simulate.simulator import Assignment, Simulator
from core.layers import LayerTable
from core.numerics.calibrate.calibration import Calibration
from core.numerics.ranges import Ranges
from core.numerics.rounding import Range
from core.numerics.scheme import Scheme
from core.source.batches import Inputs, count
from core.source.contract import ModelSource
from core.source.ownership import layer_owners
from core.source.trees import tensors

Outputs = dict[str, list[Tensor]]
"""Layer -> every floating tensor that its calls gave, in order."""


class _Seen(BaseException):
    """The layer that is watched has run for the last time: no error, but nothing after it counts."""


class OwnOutputs(Simulator):
    """A simulator that tells what a layer itself gives.

    With one layer alone out of the reference precision, its inputs are the reference's.
    """

    _watched: str | None = None
    _calls: Mapping[str, int] = {}

    def reference(self, inputs: Inputs) -> Outputs:
        """Own outputs of every layer in the reference precision on one batch."""
        self._begin(None)
        self.run({}, inputs, batch_size=count(inputs))
        self._calls = self._ran
        return self._found

    def of(self, layer: str, assignment: Assignment, inputs: Inputs) -> list[Tensor]:
        """Own outputs of `layer` under `assignment` on the batch that `reference` saw last.

        What follows the last call of the layer is not run.
        """
        self._begin(layer)
        with contextlib.suppress(_Seen):
            self.run(assignment, inputs, batch_size=count(inputs))
        return self._found.get(layer, [])

    def _begin(self, layer: str | None) -> None:
        self._watched = layer
        self._found: Outputs = {}
        self._ran: dict[str, int] = {}

    def _left(
        self, path: str, module: nn.Module, args: tuple[object, ...], output: object
    ) -> object:
        changed = super()._left(path, module, args, output)
        name = self._seen_at.get(path)
        if self._recording or name is None or self._watched not in {None, name}:
            return changed
        given = output if changed is None else changed
        found = self._found.setdefault(name, [])
        own = [t.detach().float().clone() for t in tensors(given) if t.is_floating_point()]
        found += [clipped(t, self._clips[name]) for t in own] if name in self._clips else own
        self._ran[name] = self._ran.get(name, 0) + 1
        if self._watched == name and self._ran[name] == self._calls.get(name):
            raise _Seen
        return changed

    def watch(self, layers: LayerTable) -> None:
        """Name the layers whose outputs are of interest."""
        self._layers = frozenset(layers.names)
        self._seen_at = seen_at(layers)
        self._clips = clips(layers, self.scheme.rounds_outputs)


Kind = TypeVar("Kind", bound=OwnOutputs)


def own_outputs(
    kind: type[Kind], source: ModelSource, layers: LayerTable, scheme: Scheme, ranges: tuple[Calibration, ...],
    *, expand_units: bool,
) -> Kind:  # fmt: skip
    """A simulator of single layers with the ranges that a measurement found."""
    owner = layer_owners(source, layers, expand_units=expand_units)
    simulator = kind(source.model, layers, owner, scheme, source.output)
    simulator.watch(layers)
    simulator.ranges = Ranges(
        {(r.layer, r.operation, r.operand): Range(r.low, r.high) for r in ranges}
    )
    return simulator


def error_of(found: list[Tensor], reference: list[Tensor]) -> list[Tensor] | None:
    """What `found` differs by, call by call; None where the calls or shapes are others."""
    if [f.shape for f in found] != [r.shape for r in reference]:
        return None
    with torch.no_grad():
        return [f - r for f, r in zip(found, reference, strict=True)]
