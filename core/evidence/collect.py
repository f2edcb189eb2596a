"""The outputs of every run on every sample, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.errors import ModelError
from core.evidence.engine import Engine, Run
from core.source.batches import sizes_differ, take
from core.source.contract import ModelSource

Floats = NDArray[np.float32]
Progress = Callable[[int, int, str], None]
"""(runs done, runs in all, what is done next); a run is counted once per batch."""


@dataclass(frozen=True, eq=False)
class Collected:
    """Outputs of R runs on N samples: `outputs` [R, N, K], as `keep` left them; `finite` [R]
    says whether all were finite, also those that were not kept.
    """

    outputs: Floats
    finite: NDArray[np.bool_]


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
    progress: Progress,
) -> Collected:
    """Make every run but the first, the baseline, whose outputs are `reference` [N, K]."""
    parts = engine.parts(source)
    total, done = len(runs) * len(parts), 0
    outputs = np.empty((len(runs) - 1, *keep(reference).shape), dtype=np.float32)
    finite = np.ones(len(runs) - 1, dtype=np.bool_)
    for part in parts:
        batch = take(source.selection.inputs, part.start, part.stop)
        made = engine.run(batch, runs, part.start)
        for i, run in enumerate(runs):
            progress(done, total, run.label)
            found = next(made)
            done += 1
            if found.shape[1] != reference.shape[1]:
                raise sizes_differ()
            if i:
                outputs[i - 1, part] = keep(found)
                finite[i - 1] &= np.isfinite(found).all()
    progress(total, total, "done")
    return Collected(outputs, finite)
