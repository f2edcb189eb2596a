"""What follows a layer: the part of a recording that a change of the layer can reach.

For each layer: its own modules are run again, then every call that reads something they have
changed, and nothing else. What those calls read besides is kept from the recorded pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from core.engines.torch.replay.recording import Call, Recording, Region, module_name


@dataclass(frozen=True, slots=True)
class Step:
    """Run call `index` of the recording again, or region `index`; then free the slots in `free`.

    `copied` are slots that must be copied first, because it may write into their memory;
    `writes` pairs those among them that are read afterwards with the slot they then have.
    Equal steps of different layers are one object, so that deep models stay small.
    """

    index: int
    is_region: bool
    free: tuple[int, ...]
    copied: tuple[int, ...] = ()
    writes: tuple[tuple[int, int], ...] = ()

    def on(self, recording: Recording) -> Call | Region:
        """What to run, on `recording`."""
        return recording.regions[self.index] if self.is_region else recording.calls[self.index]


@dataclass(frozen=True, slots=True)
class Dependents:
    """Everything to run again when `layers` change, mostly one.

    `first` are the slots of the layer's own output if it is one and runs once: where none of them has
    changed, nothing behind it has. `reads` are the slots taken from the recorded pass.
    """

    layers: tuple[str, ...]
    steps: tuple[Step, ...]
    first: tuple[int, ...]
    reads: frozenset[int]


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """The dependents of every layer that the output depends on, in execution order.

    `keep` are the slots that the dependents of some layer read; `copies` those to copy before call i of the
    recording writes into their memory; `refusal` why the recording cannot be replayed ("" = it can).
    """

    dependents_of: Mapping[str, Dependents]
    keep: frozenset[int]
    copies: Mapping[int, tuple[int, ...]]
    refusal: str


def plan(recording: Recording, layers: Sequence[str]) -> ReplayPlan:
    """The dependents of each of `layers`. Layers that do not reach the output are left out."""
    bit = {name: 1 << i for i, name in enumerate(layers)}
    inside = _enclosing(recording, bit)
    reach = _reach(recording, inside)
    refusal = (
        _value_read(recording, inside, reach) or _escape(recording) or _shared_write(recording)
    )
    if refusal:
        return ReplayPlan({}, frozenset(), {}, refusal)
    dependents_of = {}
    equal: dict[Step, Step] = {}
    for name in sorted({r.layer for r in recording.regions}, key=lambda n: _first(recording, n)):
        found = _dependents(recording, (name,), bit[name], reach, equal)
        if found is not None:
            dependents_of[name] = found
    keep = (
        frozenset().union(*(s.reads for s in dependents_of.values()))
        if dependents_of
        else frozenset()
    )
    return ReplayPlan(dependents_of, keep, _copies(recording, keep), "")


def together(
    recording: Recording, layers: Sequence[str], changed: Sequence[str]
) -> Dependents | None:
    """Everything to run again when all of `changed`, some of `layers`, change at once; None where the
    output depends on none of them. What it reads is kept for the dependents of single layers.
    """
    bit = {name: 1 << i for i, name in enumerate(layers)}
    reach = _reach(recording, _enclosing(recording, bit))
    ran = {region.layer for region in recording.regions}
    some = tuple(name for name in changed if name in ran)
    return _dependents(recording, some, sum(bit[n] for n in some), reach, {}) if some else None


def up_to_own(whole: ReplayPlan, recording: Recording) -> ReplayPlan:
    """What of `whole` runs before each layer's last module is done, that module included."""
    own = {name: _up_to_own(one, recording) for name, one in whole.dependents_of.items()}
    keep = frozenset[int]().union(*(one.reads for one in own.values()))
    return replace(whole, dependents_of=own, keep=keep, copies=_copies(recording, keep))


def _up_to_own(dependents: Dependents, recording: Recording) -> Dependents:
    own = [
        i for i, step in enumerate(dependents.steps)
        if isinstance(what := step.on(recording), Region) and what.layer in dependents.layers
    ]  # fmt: skip
    steps = dependents.steps[: max(own, default=-1) + 1]
    made: set[int] = set()
    reads: set[int] = set()
    for step in steps:
        what = step.on(recording)
        reads |= set(what.reads) - made
        made |= {*what.makes, *(after for _, after in step.writes)}
    return replace(dependents, steps=steps, reads=frozenset(reads))


def share(recording: Recording, dependents: Dependents) -> float:
    """The part of the pass's time that `dependents` takes, in [0, 1], by the calls' own seconds."""
    total = sum(recording.seconds)
    took = 0.0
    for step in dependents.steps:
        what = step.on(recording)
        if isinstance(what, Region):
            took += sum(recording.seconds[what.start : what.stop])
        else:
            took += recording.seconds[step.index]
    return min(took / total, 1.0) if total else 1.0


def _first(recording: Recording, layer: str) -> int:
    return next(i for i, region in enumerate(recording.regions) if region.layer == layer)


def _enclosing(recording: Recording, bit: Mapping[str, int]) -> list[int]:
    """Per call the layers (as bits) whose modules it runs in."""
    inside = [0] * len(recording.calls)
    for region in recording.regions:
        for i in range(region.start, region.stop):
            inside[i] |= bit[region.layer]
    return inside


def _reach(recording: Recording, inside: Sequence[int]) -> list[int]:
    """Per slot the layers (as bits) whose change it would feel."""
    reach = [0] * len(recording.forms)
    for i, call in enumerate(recording.calls):
        felt = inside[i]
        for slot in call.reads:
            felt |= reach[slot]
        for slot in call.makes:
            reach[slot] = felt
        for _, slot in call.writes:
            reach[slot] = felt
    return reach


def _value_read(recording: Recording, inside: Sequence[int], reach: Sequence[int]) -> str:
    """A value in Python's hands that depends on a layer: the program may take another way."""
    for i, call in enumerate(recording.calls):
        if call.value_read:
            felt = 0
            for slot in call.reads:
                felt |= reach[slot]
            if felt & ~inside[i]:
                return f"{module_name(call.path)} reads a value that depends on layers ({call.value_read})"
    return ""


def _last_reads(recording: Recording) -> dict[int, int]:
    """Slot -> position of what reads it last; the output is read at the end."""
    last: dict[int, int] = {}
    for i, call in enumerate(recording.calls):
        last |= dict.fromkeys(call.reads, i)
    for region in recording.regions:
        for slot in region.reads:
            last[slot] = max(last.get(slot, -1), region.start)
    last[recording.output] = len(recording.calls)
    return last


def _escape(recording: Recording) -> str:
    """A value that leaves a module by another way than its output cannot be renewed."""
    last = _last_reads(recording)
    for region in recording.regions:
        written = _written(recording, region)
        outputs = {*region.makes, *(after for _, after in written)}
        inner = set(region.reads)
        for call in recording.calls[region.start : region.stop]:
            inner |= {*call.makes, *(after for _, after in call.writes)}
        for slot in inner - outputs - set(region.reads):
            if last.get(slot, -1) >= region.stop:
                return f"a value leaves {module_name(region.path)} by another way than its output"
        if any(before not in region.reads for before, _ in written):
            return f"{module_name(region.path)} writes into a value that it was not given"
    return ""


def _written(recording: Recording, region: Region) -> list[tuple[int, int]]:
    """Slots from before `region` whose value it changes in place, before and after."""
    made = set()
    last: dict[int, int] = {}  # current slot -> the slot it had before the region
    for call in recording.calls[region.start : region.stop]:
        made |= set(call.makes)
        for before, after in call.writes:
            origin = last.pop(before, before)
            if origin not in made:
                last[after] = origin
            made.add(after)
    return [(origin, after) for after, origin in last.items()]


def _shared_write(recording: Recording) -> str:
    """Memory that is written through one value and read through another afterwards."""
    last = _last_reads(recording)
    sharing: dict[int, list[int]] = {}
    for i, call in enumerate(recording.calls):
        for before, _ in call.writes:
            for slot in sharing.get(recording.storages[before], ()):
                if last.get(slot, -1) > i:
                    return (
                        f"{module_name(call.path)} writes into memory that another value still uses"
                    )
        for slot in {*call.makes, *(after for _, after in call.writes)}:
            if recording.storages[slot]:
                sharing.setdefault(recording.storages[slot], []).append(slot)
    return ""


def _copies(recording: Recording, keep: frozenset[int]) -> dict[int, tuple[int, ...]]:
    copies = {}
    for i, call in enumerate(recording.calls):
        touched = {recording.storages[before] for before, _ in call.writes}
        first_new = min((after for _, after in call.writes), default=0)
        found = tuple(s for s in sorted(keep) if s < first_new and recording.storages[s] in touched)
        if found:
            copies[i] = found
    return copies


def _dependents(
    recording: Recording, layers: tuple[str, ...], bit: int, reach: Sequence[int],
    equal: dict[Step, Step],
) -> Dependents | None:  # fmt: skip
    # Of regions that start together the longest, which stands first, holds the others.
    regions = reversed(tuple(enumerate(recording.regions)))
    own = {r.start: i for i, r in regions if r.layer in layers}
    todo: list[tuple[int, bool]] = []
    i = min(own)
    while i < len(recording.calls):
        region = own.get(i)
        if region is not None and recording.regions[region].stop > i:
            todo.append((region, True))
            i = recording.regions[region].stop
            continue
        if any(reach[slot] & bit for slot in recording.calls[i].reads):
            todo.append((i, False))
        i += 1
    needed = {recording.output}
    reads: set[int] = set()
    steps: list[Step] = []
    for index, is_region in reversed(todo):
        what: Call | Region = recording.regions[index] if is_region else recording.calls[index]
        written = _written(recording, what) if isinstance(what, Region) else list(what.writes)
        outputs = {*what.makes, *(after for _, after in written)}
        if not outputs & needed:
            continue
        taken = set(what.reads)
        free = {s for s in taken - needed if reach[s] & bit} | (outputs - needed)
        reads |= {s for s in taken if not reach[s] & bit}
        needed |= taken
        touched = {recording.storages[before] for before, _ in _all_writes(recording, what)}
        copied = tuple(s for s in sorted(taken) if recording.storages[s] in touched)
        step = Step(index, is_region, tuple(sorted(free)), copied, tuple(written))
        steps.append(equal.setdefault(step, step))
    if not steps:
        return None
    steps.reverse()
    once = len(layers) == len(own) == 1 and not steps[0].writes
    first = recording.regions[own[min(own)]].makes if once else ()
    return Dependents(layers, tuple(steps), first, frozenset(reads))


def _all_writes(recording: Recording, what: Call | Region) -> list[tuple[int, int]]:
    if isinstance(what, Call):
        return list(what.writes)
    return [pair for call in recording.calls[what.start : what.stop] for pair in call.writes]
