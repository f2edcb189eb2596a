"""How the runs of a measurement are made: by replay where a model allows it, within a bound."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from core.evidence.memory import (
    BATCH,
    Footprint,
    batch_size,
    batches,
    footprint,
    free_bytes,
    too_little,
)
from core.evidence.replay import Replayer
from core.evidence.simulate import Assignment, Simulator
from core.precision import Precision
from core.source.contract import ModelSource


@dataclass(frozen=True, slots=True)
class Run:
    """One run over the selection split: which layers leave the reference precision.

    `layer` is the one that does so alone, "" for the baseline and whole maps.
    """

    label: str
    assignment: Assignment
    layer: str = ""


@dataclass(frozen=True, slots=True)
class Engine:
    """How the runs will be made: `batch` samples at a time, which `need` memory.

    `note` says so where smaller batches than usual may change the last bits.
    """

    simulator: Simulator
    replayer: Replayer
    need: Footprint
    batch: int
    note: str = ""

    @property
    def reason(self) -> str:
        """Why every run is a full pass; "" where layers are replayed."""
        return self.replayer.refusal

    @property
    def peak_bytes(self) -> int:
        """Predicted peak of memory."""
        return self.need.peak(self.batch, replay=not self.reason)

    def run(self, batch: Tensor, runs: Sequence[Run]) -> Iterator[NDArray[np.float32]]:
        """Outputs [N, K] of each of `runs` on inputs [N, ...]; the baseline comes first."""
        others = runs[1:]
        alone = [run for run in others if run.layer]
        pairs = [(run.layer, run.assignment[run.layer]) for run in alone]
        yield from self.replayer.run(batch, pairs)
        for run in others[len(alone) :]:  # in a whole map nearly everything changes
            yield self.simulator.run(run.assignment, batch, len(batch))

    def notes(self) -> tuple[str, ...]:
        """What a person should know of how the runs were made."""
        found = [self.note] if self.note else []
        if self.reason:
            found.append(f"Every layer was measured by full passes: {self.reason}.")
        elif self.replayer.full_passes:
            found.append(f"{self.replayer.full_passes} runs took another way through the model "
                         "than the recorded pass and were made as full passes.")  # fmt: skip
        return tuple(found)


def prepare(
    simulator: Simulator,
    source: ModelSource,
    precisions: tuple[Precision, ...],
    runs: int,
    memory_bytes: int | None = None,
) -> Engine:
    """Choose how to measure: replay if the model allows it, in batches that fit the memory.

    `memory_bytes` is the bound, half of what is free if None. Raises `PolicyError` if not even
    the smallest batches of full passes fit.
    """
    inputs = source.selection.inputs
    samples = len(source.selection)
    limit = free_bytes() // 2 if memory_bytes is None else memory_bytes
    pilot = inputs[:2]
    outputs = simulator.run({}, pilot).shape[1]
    narrowest = min(precisions, key=lambda p: p.bits)
    replayer = Replayer(simulator, pilot, [(name, narrowest) for name in simulator.varied])
    weights = sum(t.numel() * t.element_size() for t in simulator.model.parameters())
    changes = 2 * runs * samples * outputs * np.dtype(np.float32).itemsize
    need = footprint(
        replayer.tape, replayer.plan.keep, len(pilot), len(precisions) * weights + changes
    )
    batch = 0 if replayer.refusal else batch_size(need, limit, samples, replay=True)
    if not batch:
        reason = "the values of a pass do not fit into the memory allowed"
        replayer.refusal = replayer.refusal or reason
        batch = batch_size(need, limit, samples, replay=False)
    if not batch:
        raise too_little(need, limit)
    return Engine(
        simulator, replayer, need, batch, _parts_note(simulator, inputs, batch, need, limit)
    )


def _parts_note(
    simulator: Simulator, inputs: Tensor, batch: int, need: Footprint, limit: int
) -> str:
    """Empty if a batch gives the same bits in parts of `batch` samples, or none is parted."""
    first = inputs[:BATCH]
    if batch >= len(first):
        return ""
    if need.peak(len(first), replay=False) <= limit:
        parts = [simulator.run({}, first[p], batch) for p in batches(len(first), batch)]
        if np.concatenate(parts).tobytes() == simulator.run({}, first, BATCH).tobytes():
            return ""
    return (
        f"Run in batches of {batch} to stay within the memory allowed, which may change last bits."
    )


def predict_seconds(engine: Engine, source: ModelSource, runs: Sequence[Run]) -> float:
    """Estimated duration of `runs`, from one small batch of the selection split."""
    inputs = source.selection.inputs[:64]
    simulator = engine.simulator
    simulator.run({}, inputs[:8])
    start = time.perf_counter()
    simulator.run({}, inputs)
    each = (time.perf_counter() - start) / len(inputs) * len(source.selection)
    shares = {} if engine.reason else engine.replayer.shares(inputs)
    passes = 0.0
    for run in runs:
        alone = next(iter(run.assignment)) if run.layer else ""
        passes += shares.get(alone, 1.0)
    return each * passes
