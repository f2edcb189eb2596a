"""The outputs of every run on every sample, batch by batch, made or found on the shelf."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.cache import Unit
from core.errors import ModelError
from core.evidence.content import run_key
from core.evidence.engine import Engine, Run
from core.evidence.shelf import Shelf
from core.source.batches import sizes_differ, take
from core.source.contract import ModelSource

Floats = NDArray[np.float32]
Progress = Callable[[int, int, str], None]
"""(runs done, runs in all, what is done next); a run is counted once per batch."""


@dataclass(frozen=True, eq=False)
class Collected:
    """Outputs of R runs on N samples: `outputs` [R, N, K], as `keep` left them; `finite` [R]
    says whether all were finite, also those that were not kept. `full_passes` counts runs of a
    batch that could not be replayed although others were.
    """

    outputs: Floats
    finite: NDArray[np.bool_]
    full_passes: int


def reference_outputs(engine: Engine, source: ModelSource) -> Floats:
    """All outputs [N, K] of the model as it is, from the batches that every run meets.

    Raises `ModelError` where they are not finite.
    """
    inputs, found = source.selection.inputs, []
    for part in engine.parts(source):
        batch = take(inputs, part.start, part.stop)
        found.append(engine.simulator.run({}, batch, engine.batch, part.start))
        if found[-1].shape[1] != found[0].shape[1]:
            raise sizes_differ()
    reference = np.concatenate(found)
    bad = np.flatnonzero(~np.isfinite(reference).all(axis=1))
    if len(bad):
        raise ModelError(
            f"The model's own outputs are NaN or infinite, first on selection sample {bad[0]}.",
            "Run it on that sample in FP32 and mend the model or leave the sample out.",
        )
    return reference


def collect(
    engine: Engine,
    source: ModelSource,
    runs: Sequence[Run],
    reference: Floats,
    keep: Callable[[Floats], Floats],
    shelf: Shelf,
    progress: Progress,
) -> Collected:
    """Make every run but the first, the baseline, whose outputs are `reference` [N, K]. What is
    on the shelf is not made again.
    """
    parts = engine.parts(source)
    total, done, full_passes = len(runs) * len(parts), 0, 0
    outputs = np.empty((len(runs) - 1, *keep(reference).shape), dtype=np.float32)
    finite = np.ones(len(runs) - 1, dtype=np.bool_)
    keys = [run_key(run.assignment) for run in runs[1:]]
    with shelf:
        for part in parts:
            progress(done, total, runs[0].label)
            held = shelf.find(part)
            missing = [run for run, key in zip(runs[1:], keys, strict=True) if key not in held]
            made = _made(engine, source, part, [runs[0], *missing]) if missing else iter(())
            done += 1
            for i, key in enumerate(keys):
                unit = held.get(key)
                if unit is None:
                    progress(done, total, runs[i + 1].label)
                    found, in_full = next(made)
                    if found.shape[1] != reference.shape[1]:
                        raise sizes_differ()
                    is_finite = bool(np.isfinite(found).all())
                    unit = Unit(key, part.start, part.stop, keep(found), is_finite, in_full)
                    shelf.add(unit)
                done += 1
                outputs[i, part] = unit.outputs
                finite[i] &= unit.finite
                full_passes += unit.in_full and bool(runs[i + 1].layer)  # a map always is one
    progress(total, total, "done")
    return Collected(outputs, finite, full_passes)


def _made(
    engine: Engine, source: ModelSource, part: slice, runs: Sequence[Run]
) -> Iterator[tuple[Floats, bool]]:
    """Outputs of every run but the first, and whether one had to be a full pass."""
    made = engine.run(take(source.selection.inputs, part.start, part.stop), runs, part.start)
    next(made)  # the recorded pass
    before = engine.replayer.full_passes
    for outputs in made:
        yield outputs, engine.replayer.full_passes > before
        before = engine.replayer.full_passes
