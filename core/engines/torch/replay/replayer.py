"""Measuring a layer by running again only what follows it.

The layer's own modules run under the simulator, as in a full pass; the rest of the dependents is a
list of torch functions on recorded values. So the numbers are those of a full pass, bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from core.engines.engine import Floats, Pair
from core.engines.torch.replay.dependents import (
    Dependents,
    ReplayPlan,
    plan,
    share,
    together,
    up_to_own,
)
from core.engines.torch.replay.forward_state import attributes, changed
from core.engines.torch.replay.recorder import Recorder
from core.engines.torch.replay.recording import (
    Recording,
    Region,
    Slot,
    filled,
    leaves,
    live_bytes,
    tensors_in,
)
from core.engines.torch.simulate.simulator import Simulator
from core.errors import ModelError
from core.numerics.precision import Precision
from core.source.batches import Inputs, count, state_kept

# What a model under a recorder may meet that it does not meet alone (functorch's tensors have no
# storage, say). An error of its own comes back in the full pass.
_UNFOLLOWED = (RuntimeError, TypeError, ValueError, AttributeError, LookupError)


class Diverged(Exception):  # noqa: N818 (caught here; never an error of the user's)
    """What follows a layer made something of another form than the recorded pass."""


class Replayer:
    """Runs layers of `simulator`'s model alone on one batch after the other.

    `refusal` says why nothing can be replayed for this model ("" = they can); every run is then
    a full pass. `full_passes` counts single runs that were made so because they took another
    way through the model than the recorded pass. `recording` and `plan` are those of the
    pilot, a batch of few samples.
    """

    def __init__(self, simulator: Simulator, pilot: Inputs, check: Sequence[Pair] = ()) -> None:
        """Record `pilot` and hold replays of the pairs in `check` against full passes."""
        self.refusal = ""
        self.full_passes = 0
        self._simulator = simulator
        self._names = simulator.varied
        self._samples = count(pilot)
        self.recording, self.plan = self._pilot(pilot)
        self.refusal = self.refusal or self._compare(pilot, check)
        self.full_passes = 0

    def shares(self, batch: Inputs) -> dict[str, float]:
        """Layer -> part of a pass that runs again when it changes, in [0, 1], timed on `batch`."""
        if self.refusal:
            return dict.fromkeys(self._names, 1.0)
        recording, _, _, same = self._record(batch, 0)
        if not same:
            return dict.fromkeys(self._names, 1.0)
        dependents_of = self.plan.dependents_of
        return {
            n: share(recording, dependents_of[n]) if n in dependents_of else 0.0
            for n in self._names
        }

    def value_bytes(self) -> tuple[int, int]:
        """Bytes a sample of the values that replays read, and of those alive at once in a pass."""
        recording, size = self.recording, self.recording.storage_sizes
        kept = {recording.storages[slot] for slot in self.plan.keep}
        return (
            -(-sum(size[storage] for storage in kept) // self._samples),
            -(-live_bytes(recording) // self._samples),
        )

    def looks(self, batch: Inputs) -> dict[str, float]:
        """Layer -> part of a pass that a look at its own output takes, in [0, 1], timed on `batch`:
        its own modules, or where they cannot run alone a pass up to its last run. Empty where a pass
        could not be recorded.
        """
        recording, _, _, same = self._record(batch, 0)
        if same and not self.refusal:
            own = self.own_plan.dependents_of.items()
            return {name: share(recording, dependents) for name, dependents in own}
        total, stops = sum(recording.seconds), dict[str, int]()
        for region in recording.regions:
            stops[region.layer] = max(stops.get(region.layer, 0), region.stop)
        return (
            {n: sum(recording.seconds[:stop]) / total for n, stop in stops.items()} if total else {}
        )

    def own_runs(self, batch: Inputs) -> OwnRuns:
        """Runs of single layers on `batch` that end with the layer's own modules."""
        if self.refusal:
            return OwnRuns(self, {}, self.recording, {})
        recording, kept, _, same = self._record(batch, 0, self.own_plan)
        return OwnRuns(self, self.own_plan.dependents_of if same else {}, recording, kept)

    @cached_property
    def own_plan(self) -> ReplayPlan:
        """`plan` cut behind each layer's last module."""
        return up_to_own(self.plan, self.recording)

    # ---- before the run

    def _pilot(self, batch: Inputs) -> tuple[Recording, ReplayPlan]:
        simulator = self._simulator
        simulator.run({}, batch)  # what a model caches at its first call is no state
        alive: list[Any] = []
        before = attributes(simulator.model, alive)
        recorder = Recorder(
            simulator.model, simulator.owner, set(self._names), simulator.counts, hold=True
        )
        with state_kept(simulator.model):
            try:
                recording, _ = recorder.record(lambda: simulator.answer(batch, 0))
            except _UNFOLLOWED as error:
                self.refusal = f"its pass could not be recorded ({type(error).__name__}: {error})"
                nothing = Recording((), (), (), (), (), (), -1, asks_layout=False)
                return nothing, plan(nothing, ())
            after = attributes(simulator.model, alive)
        found = plan(recording, self._names)
        self.refusal = recorder.refusal or changed(before, after) or found.refusal
        return recording, found

    def _compare(self, batch: Inputs, check: Sequence[Pair]) -> str:
        if self.refusal or self._is_alike(batch, check):
            return ""
        try:
            for (name, precision), replayed in zip(check, self._replay(batch, check), strict=True):
                full = self._simulator.run({name: precision}, batch)
                if full.tobytes() != replayed.tobytes():
                    return f"layer {name!r} alone differs from a full pass in {precision.name}"
        except ModelError as error:  # a batch as small as the pilot may go a way of its own
            return f"{count(batch)} samples alone cannot be run ({error})"
        return ""

    def _is_alike(self, batch: Inputs, check: Sequence[Pair]) -> bool:
        """Whether every other layer of a precision at once, and the rest at once, give in a replay what
        a full pass gives. Each layer is then run as a module once, and once function by function, on
        values that all differ from the recorded ones: what reached the output by a way that the
        recording does not know would show. If not, or where layers together go another way than
        each alone, single layers tell.
        """
        names: dict[Precision, list[str]] = {}
        for name, precision in check:
            names.setdefault(precision, []).append(name)
        recording, kept, clean, same = self._record(batch, 0)
        if not same:
            return False
        for precision, of_it in names.items():
            for some in filter(None, (of_it[::2], of_it[1::2])):
                steps = together(self.recording, self._names, some)
                try:
                    full = self._simulator.run(dict.fromkeys(some, precision), batch)
                    with torch.no_grad():
                        found = (
                            None
                            if steps is None
                            else self.replayed(steps, precision, recording, kept)
                        )
                except (Diverged, ModelError, *_UNFOLLOWED):
                    return False
                if full.tobytes() != (clean if found is None else found.numpy()).tobytes():
                    return False
        return True

    # ---- the run

    def run(self, batch: Inputs, pairs: Sequence[Pair], first: int = 0) -> Iterator[Floats]:
        """Outputs [N, K] of the model as it is, then of each layer alone in its precision.

        `batch` are inputs of N samples, `first` is the number of the first of them. Memory is least where `pairs` are in execution order.
        """
        if not self.refusal:
            yield from self._replay(batch, pairs, first, baseline=True)
            return
        for assignment in ({}, *({name: precision} for name, precision in pairs)):
            yield self._simulator.run(assignment, batch, count(batch), first)

    def _replay(
        self, batch: Inputs, pairs: Sequence[Pair], first: int = 0, *, baseline: bool = False
    ) -> Iterator[Floats]:
        self._simulator.find_samples((precision for _, precision in pairs), batch, first)
        recording, kept, clean, same = self._record(batch, first)
        dependents_of = self.plan.dependents_of if same else {}
        if baseline:
            yield clean
        last = _last_use(pairs, dependents_of)
        for i, (name, precision) in enumerate(pairs):
            if not same:
                yield self._full(batch, name, precision, first)
            elif name not in dependents_of:
                yield clean
            else:
                try:
                    with torch.no_grad():
                        result = self.replayed(dependents_of[name], precision, recording, kept)
                    yield clean if result is None else result.numpy()
                except (Diverged, *_UNFOLLOWED):
                    yield self._full(batch, name, precision, first)
            for slot in last.get(i, ()):
                kept.pop(slot, None)

    def _record(
        self, batch: Inputs, first: int, planned: ReplayPlan | None = None
    ) -> tuple[Recording, dict[int, Tensor], Floats, bool]:
        """Recording, kept values and output of one pass; False where it went another way."""
        simulator, planned = self._simulator, planned or self.plan
        recorder = Recorder(
            simulator.model, simulator.owner, set(self._names), simulator.counts,
            keep=planned.keep, copies=planned.copies,
        )  # fmt: skip
        try:
            with state_kept(simulator.model):
                recording, output = recorder.record(lambda: simulator.answer(batch, first))
        except _UNFOLLOWED:
            return self.recording, {}, simulator.run({}, batch, count(batch), first), False
        same = not recorder.refusal and recording.wiring() == self.recording.wiring()
        return recording, recorder.kept, output.numpy(), same

    def _full(self, batch: Inputs, name: str, precision: Precision, first: int) -> Floats:
        self.full_passes += 1
        return self._simulator.run({name: precision}, batch, count(batch), first)

    def replayed(
        self,
        dependents: Dependents,
        precision: Precision | None,
        recording: Recording,
        kept: Mapping[int, Tensor],
    ) -> Tensor | None:
        """The output of the model, or None if the layer's own output stayed the same."""
        values: list[Any] = [None] * len(recording.forms)
        for slot in dependents.reads:
            values[slot] = kept[slot]
        assignment = {} if precision is None else dict.fromkeys(dependents.layers, precision)
        for step in dependents.steps:
            for slot in step.copied:
                values[slot] = values[slot].clone()
            what = step.on(recording)
            args = filled(what.args, values)
            kwargs = filled(what.kwargs, values) if what.kwargs else {}
            if isinstance(what, Region):
                counts = {what.layer: what.count}
                if len(dependents.layers) > 1:
                    counts = recording.counts_within(what)
                made = self._simulator.run_module(assignment, what.module, args, kwargs, counts)
                _put(what.leaves, list(leaves(made)), values, recording)
            else:
                made = what.func(*args, **kwargs)
                for slot, value in zip(what.makes, tensors_in(made), strict=True):
                    if value.shape != recording.forms[slot][0]:
                        raise Diverged
                    values[slot] = value
            for before, after in step.writes:
                values[after] = values[before]
            del args, kwargs, made
            if step is dependents.steps[0] and _unchanged(dependents.first, values, kept):
                return None
            for slot in step.free:
                values[slot] = None
        result: Tensor = values[recording.output]
        return result


@dataclass(frozen=True, eq=False)
class OwnRuns:
    """One batch of which single layers run again, with nothing of what follows them.

    `own` are the steps up to each layer's last module, of the `recording` whose values are `kept`.
    """

    replayer: Replayer
    own: Mapping[str, Dependents]
    recording: Recording
    kept: Mapping[int, Tensor]

    def run(self, layer: str, precision: Precision | None) -> bool:
        """Run the modules of `layer` in `precision` (None: as they are), on what the recorded pass
        gave them. False where that cannot be done, or not to the end.
        """
        if layer not in self.own:
            return False
        try:
            with torch.no_grad():
                self.replayer.replayed(self.own[layer], precision, self.recording, self.kept)
        except (Diverged, ModelError, *_UNFOLLOWED):
            return False
        return True


def _put(
    expected: Sequence[Any], made: Sequence[Any], values: list[Any], recording: Recording
) -> None:
    """Put a module's output into its slots; what is no value must be as it was."""
    if len(expected) != len(made):
        raise Diverged
    seen: dict[int, int] = {}
    for template, value in zip(expected, made, strict=True):
        if type(template) is not Slot:
            if isinstance(value, Tensor) or isinstance(template, Tensor):
                if value is not template:
                    raise Diverged
            elif value != template:
                raise Diverged
            continue
        shape, stride, dtype = recording.forms[template.index]
        if not isinstance(value, Tensor) or value.shape != shape or value.dtype != dtype:
            raise Diverged
        if recording.asks_layout and value.stride() != stride:
            raise Diverged
        # Code may ask whether two values are one object; both passes must answer alike.
        if seen.setdefault(template.index, id(value)) != id(value):
            raise Diverged
        values[template.index] = value


def _unchanged(first: Sequence[int], values: Sequence[Any], kept: Mapping[int, Tensor]) -> bool:
    return bool(first) and all(
        slot in kept and same_bits(values[slot], kept[slot]) for slot in first
    )


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors lie in memory alike and hold the same bits."""
    if a.dtype != b.dtype or a.stride() != b.stride():
        return False
    if a.dtype == torch.float32:  # 0.0 equals -0.0 and NaN nothing, but bits are bits
        a, b = a.view(torch.int32), b.view(torch.int32)
    return torch.equal(a, b)


def _last_use(
    pairs: Sequence[Pair], dependents_of: Mapping[str, Dependents]
) -> dict[int, list[int]]:
    """Position in `pairs` -> kept slots that nothing after it reads."""
    last: dict[int, int] = {}
    for i, (name, _) in enumerate(pairs):
        if name in dependents_of:
            last |= dict.fromkeys((*dependents_of[name].reads, *dependents_of[name].first), i)
    found: dict[int, list[int]] = {}
    for slot, i in last.items():
        found.setdefault(i, []).append(slot)
    return found
