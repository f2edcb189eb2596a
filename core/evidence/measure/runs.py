"""How the runs of a measurement are made: by replay where a model allows it, within a bound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.engines.engine import Assignment, Engine, Replay
from core.errors import ModelError
from core.evidence.measure.cache import Unit
from core.evidence.measure.cache_key import run_key
from core.evidence.measure.draw import Draw, parts
from core.evidence.measure.keeper import Keeper
from core.evidence.measure.memory import (
    BATCH,
    OVERHEAD_BYTES,
    TEMPORARIES,
    Footprint,
    batch_size,
    batches,
    free_bytes,
    input_bytes,
    too_little,
)
from core.evidence.measure.outputs import OutputReader
from core.evidence.options import MeasureOptions
from core.source.batches import Inputs, count, device_of, sizes_differ, take
from core.source.contract import ModelSource


@dataclass(frozen=True, slots=True)
class Run:
    """One run over the selection split: which layers leave the reference precision.

    `layer` is the one that does so alone, "" for the baseline and whole maps; `idle` says that
    its precision means nothing for it, so that the baseline stands for the run.
    """

    label: str
    assignment: Assignment
    layer: str = ""
    idle: bool = False


@dataclass(frozen=True, slots=True)
class Runner:
    """How the runs will be made: `batch` samples at a time, which `need` memory.

    `note` says so where smaller batches than usual may change the last bits. Samples are drawn in
    another order than theirs, a few of them first, unless `is_drawn` is False, as for a model whose
    outputs depend on the batch, or on what ran before.
    """

    simulator: Engine
    replayer: Replay
    need: Footprint
    batch: int
    note: str = ""
    is_drawn: bool = True

    @property
    def reason(self) -> str:
        """Why every run is a full pass; "" where layers are replayed."""
        return self.replayer.refusal

    @property
    def peak_bytes(self) -> int:
        """Predicted peak of memory."""
        return self.need.peak(self.batch, replay=not self.reason)

    def parts(self, samples: int) -> list[slice]:
        """The places of so many samples in batches, the same ones for every run."""
        return parts(samples, self.batch) if self.is_drawn else batches(samples, self.batch)

    def run(
        self, batch: Inputs, runs: Sequence[Run], first: int = 0
    ) -> Iterator[NDArray[np.float32]]:
        """Outputs [N, K] of each of `runs` on inputs of N samples; the baseline comes first.

        `first` is the number of the first sample.
        """
        others = runs[1:]
        alone = [run for run in others if run.layer]
        pairs = [(run.layer, run.assignment[run.layer]) for run in alone]
        yield from self.replayer.run(batch, pairs, first)
        for run in others[len(alone) :]:  # in a whole map nearly everything changes
            yield self.simulator.run(run.assignment, batch, count(batch), first)

    def units(
        self,
        drawn: Draw,
        runs: Sequence[Run],
        positions: Sequence[int],
        part: slice,
        keeper: Keeper,
        width: int,
    ) -> Iterator[Unit]:
        """Make the runs at `positions` on the samples of `part`; the first of `runs`, the
        baseline, is recorded before them. Every run has `width` outputs, of which `keeper` holds
        what is kept.
        """
        batch, rows = drawn.batch(part), drawn.rows(part)
        made = [i for i in positions if not runs[i].idle]
        outputs = self.run(batch, [runs[0], *(runs[i] for i in made)], part.start)
        clean = next(outputs)
        finite = bool(np.isfinite(clean).all())
        # What is kept of it is little, all of it may be much.
        held = keeper.hold(clean, rows) if len(made) < len(positions) else np.empty(0, np.float32)
        del clean
        before = self.replayer.full_passes
        for i in positions:
            if runs[i].idle:
                key = run_key(runs[i].assignment)
                yield Unit(key, part.start, part.stop, held, finite, in_full=False)
                continue
            try:
                found = next(outputs)
            except ModelError as error:
                raise named(self.simulator, runs[i].assignment, drawn, part, error) from error
            if found.shape[1] != width:
                raise sizes_differ()
            in_full = self.replayer.full_passes > before  # a whole map is no exception
            before = self.replayer.full_passes
            yield Unit(
                run_key(runs[i].assignment), part.start, part.stop,
                keeper.hold(found, rows),
                bool(np.isfinite(found).all()), in_full and bool(runs[i].layer),
            )  # fmt: skip

    def notes(self, full_passes: int) -> tuple[str, ...]:
        """What a person should know of how the runs were made, `full_passes` of them against
        the plan.
        """
        found = [self.note] if self.note else []
        if self.reason:
            found.append(f"Every layer was measured by full passes: {self.reason}.")
        elif full_passes:
            found.append(f"{full_passes} runs took another way through the model "
                         "than the recorded pass and were made as full passes.")  # fmt: skip
        return tuple(found)


def named(
    engine: Engine, assignment: Assignment, drawn: Draw, part: slice, error: ModelError
) -> ModelError:
    """`error` of a batch by the first sample that raises it alone; batches count samples as they are
    drawn, a person as they stand in the split.
    """
    for row in np.sort(drawn.rows(part)):
        alone, number = drawn.single(int(row))
        try:
            engine.run(assignment, alone, 1, number)
        except ModelError as found:
            return found
    return ModelError(f"{error.cause} Samples count as they were drawn.", error.next_step)


def prepare(
    simulator: Engine,
    source: ModelSource,
    reader: OutputReader,
    runs: int,
    options: MeasureOptions,
) -> Runner:
    """Choose how to make `runs` runs: replay if the model allows it, in batches that fit the
    memory. Raises `PolicyError` if not even the smallest batches of full passes fit.
    """
    inputs = source.selection.inputs
    samples = len(source.selection)
    here = device_of(source.model)
    limit = free_bytes(here) // 2 if options.memory_bytes is None else options.memory_bytes
    pilot = take(inputs, 0, 2)
    found = simulator.run({}, pilot)
    # Outputs of all runs are held, and their changes beside them; a custom metric reads them all.
    held = reader.columns + (reader.columns if source.metric is None else found.shape[1])
    precisions, jobs = options.precisions, options.jobs
    routes = {
        p.route: p for p in sorted(precisions, key=lambda p: -p.bits)
    }  # the narrowest of each
    check = [(name, p) for name in simulator.varied for p in routes.values()]
    simulator.hold_weights(limit // 4)  # until it is known what a batch needs
    replayer = simulator.replay(pilot, check)
    weights, buffers, largest = simulator.stored_bytes()
    changes = runs * samples * held * np.dtype(np.float32).itemsize
    entries = samples * reader.columns * np.dtype(np.int32).itemsize if reader.entries else 0
    fixed = OVERHEAD_BYTES + changes + entries + buffers + TEMPORARIES * largest
    need = Footprint(fixed, *replayer.value_bytes(), len(precisions) * weights)
    if jobs > 1:  # each has the model and the inputs, once more while they are unpacked
        each = 2 * weights + input_bytes(inputs) + entries + TEMPORARIES * largest
        need = need.shared(jobs, each)
    # Rounded weights are let go before layers are not replayed any more.
    ways = [(replay, some) for replay in (True, False) for some in (need, need.holding(0))]
    for replay, way in ways[2 * bool(replayer.refusal) :]:
        batch = batch_size(way, limit, samples, replay=replay)
        if batch:
            break
    else:
        raise too_little(need, limit)
    if not replay:
        reason = "the values of a pass do not fit into the memory allowed"
        replayer.refusal = replayer.refusal or reason
    need = need.holding(limit - need.holding(0).peak(batch, replay=replay))
    simulator.hold_weights(need.weights // (1 if jobs == 1 else 1 + jobs))
    return Runner(
        simulator, replayer, need, batch, _parts_note(simulator, inputs, batch, need, limit)
    )


def _parts_note(simulator: Engine, inputs: Inputs, batch: int, need: Footprint, limit: int) -> str:
    """Empty if a batch gives the same bits in parts of `batch` samples, or none is parted."""
    first = take(inputs, 0, BATCH)
    samples = count(first)
    if batch >= samples:
        return ""
    if need.peak(samples, replay=False) <= limit:
        outputs = [
            simulator.run({}, take(first, p.start, p.stop), batch, p.start)
            for p in batches(samples, batch)
        ]
        if np.concatenate(outputs).tobytes() == simulator.run({}, first, BATCH).tobytes():
            return ""
    return (
        f"Run in batches of {batch} to stay within the memory allowed, which may change last bits."
    )
