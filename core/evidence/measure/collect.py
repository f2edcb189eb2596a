"""The outputs of every run on every sample, batch by batch, made or found in the cache of runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from core.errors import ModelError
from core.evidence.measure.cache import Unit
from core.evidence.measure.cache_key import run_key
from core.evidence.measure.draw import Draw
from core.evidence.measure.keeper import Keeper, keep
from core.evidence.measure.outputs import OutputReader
from core.evidence.measure.partial_results import PartialResults
from core.evidence.measure.run_cache import RunCache
from core.evidence.measure.runs import Runner, named
from core.evidence.measure.workers import Work, made, tasks
from core.source.batches import sizes_differ
from core.source.contract import ModelSource

Floats = NDArray[np.float32]
Progress = Callable[[int, int, str], None]
"""(runs done, runs in all, what is done next); a run is counted once per batch."""


@dataclass(frozen=True, eq=False)
class Collected:
    """Outputs of R runs on N samples: `outputs` [R, N, K], what is held of them; `finite` [R]
    says whether all were finite, also those that were not kept. `full_passes` counts runs of a
    batch that could not be replayed although others were. `done` [R, B] says which runs were made
    on which batches of samples, which stand at `rows` of the split; `first` are the units of the first batch, by the run's place.
    """

    outputs: Floats
    finite: NDArray[np.bool_]
    full_passes: int
    done: NDArray[np.bool_]
    rows: Sequence[NDArray[np.int64]]
    first: Mapping[int, Unit]


@dataclass(frozen=True, eq=False)
class Reference:
    """The model as it is: what is `held` of its outputs [N, K] and by whom, how many outputs a
    sample has (`width`), and the SHA-256 of all of them.
    """

    keeper: Keeper
    held: Floats
    width: int
    sha256: str


def reference_outputs(
    runner: Runner, source: ModelSource, reader: OutputReader, drawn: Draw, *, everything: bool
) -> Reference:
    """The outputs of the model as it is, from the batches of `drawn` that every run meets.

    Raises `ModelError` where they are not finite.
    """
    digest, width = hashlib.sha256(), 0

    def found() -> Iterator[Floats]:
        nonlocal width
        for part in runner.parts(len(drawn.order)):
            batch = drawn.batch(part)
            try:
                values = runner.simulator.run({}, batch, runner.batch, part.start)
            except ModelError as error:
                raise named(runner.simulator, {}, drawn, part, error) from error
            if part.start and values.shape[1] != width:
                raise sizes_differ()
            width = values.shape[1]
            bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
            if len(bad):
                raise ModelError(
                    "The model's own outputs are NaN or infinite, first on selection sample "
                    f"{drawn.numbers[drawn.rows(part)[bad]].min()}.",
                    "Run it on that sample in FP32 and mend the model or leave the sample out.",
                )
            digest.update(np.ascontiguousarray(values).data)
            yield values

    keeper, held = keep(reader, source.selection, found(), everything=everything, order=drawn.order)
    return Reference(keeper, held, width, digest.hexdigest())


def collect(
    runner: Runner,
    work: Work,
    run_cache: RunCache,
    progress: Progress,
    partial_results: PartialResults,
    known: Mapping[int, Unit],
    *,
    jobs: int = 1,
    is_enough: Callable[[Collected], bool] | None = None,
) -> Collected:
    """Make every run but the first, the baseline. What the cache of runs holds is not made again, nor
    are the `known` units of the first batch, by the run's place. `is_enough`, if given, is asked
    before each further batch whether it can be left out.
    """
    drawn, runs = work.drawn, work.runs
    samples = len(drawn.order)
    parts = runner.parts(samples)
    outputs = np.zeros((len(runs) - 1, samples, work.columns), dtype=np.float32)
    finite = np.ones(len(runs) - 1, dtype=np.bool_)
    finished = np.zeros((len(runs) - 1, len(parts)), dtype=np.bool_)
    column = {part.start: b for b, part in enumerate(parts)}
    keys = [run_key(run.assignment) for run in runs]
    total, done, full_passes = len(runs) * len(parts), 0, 0
    first: dict[int, Unit] = {}

    def place(i: int, unit: Unit) -> None:
        nonlocal done, full_passes
        done += 1
        if not unit.start:
            first[i] = unit
        outputs[i - 1, drawn.rows(slice(unit.start, unit.stop))] = unit.outputs
        finite[i - 1] &= unit.finite
        full_passes += unit.in_full and bool(runs[i].layer)
        finished[i - 1, column[unit.start]] = True

    def missing(part: slice) -> list[int]:
        nonlocal done
        if part.start or not known:
            progress(done, total, runs[0].label)
        done += 1  # the baseline
        found = run_cache.find(part)
        for i, key in enumerate(keys[1:], start=1):
            if key in found:
                place(i, found[key])
        return [i for i, key in enumerate(keys) if i and key not in found]

    def keep(i: int, unit: Unit) -> None:
        run_cache.add(unit)
        place(i, unit)

    def make(some: Sequence[slice]) -> None:
        if jobs > 1:
            for block in made(work, tasks([(part, missing(part)) for part in some], jobs), jobs):
                for i, unit in block:
                    keep(i, unit)
                    progress(done, total, runs[i].label)
                partial_results.look()
            return
        for part in some:
            todo = missing(part)
            units = runner.units(drawn, runs, todo, part, work.keeper, work.width)
            for i in todo:
                progress(done, total, runs[i].label)
                keep(i, next(units))
                partial_results.look()

    rows = [drawn.rows(part) for part in parts]
    found = Collected(outputs, finite, 0, finished, rows, first)
    partial_results.watch(outputs, finite, finished, rows)
    with run_cache, partial_results:
        if known:
            for i in missing(parts[0]):
                keep(i, known[i])
        left = parts[1:] if known else parts
        if is_enough is None:
            make(left)
        else:
            for part in left:
                if finished.any() and is_enough(found):
                    break
                make([part])
    return replace(found, full_passes=full_passes)
