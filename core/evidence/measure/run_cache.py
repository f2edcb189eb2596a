"""The finished runs of one measurement, as the cache holds them."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from core.evidence.measure.cache import Cache, Unit
from core.evidence.measure.cache_key import content_key, is_repeatable, run_key
from core.evidence.measure.runs import Run, Runner
from core.layers import LayerTable
from core.source.batches import take
from core.source.contract import ModelSource

FLUSH_SECONDS = 1.0
"""Most work that a killed process loses: to write every run alone would cost more than this."""
FLUSH_BYTES = 32 * 10**6


NO_SAMPLES = slice(0, 0)

Doubles = NDArray[np.float64]


class RunCache:
    """Finished runs of one measurement; a context manager that leaves none unwritten."""

    def __init__(self, cache: Cache | None, key: str, title: str) -> None:
        self._cache, self.key, self._title = cache, key, title
        self._waiting: list[Unit] = []
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._flush()

    def find(self, part: slice) -> dict[str, Unit]:
        """Finished runs on the samples of `part`, by run."""
        return {} if self._cache is None else self._cache.find(self.key, part.start, part.stop)

    def add(self, unit: Unit) -> None:
        """Keep a finished run."""
        if self._cache is None:
            return
        self._waiting.append(unit)
        is_late = time.monotonic() - self._since >= FLUSH_SECONDS
        if is_late or sum(u.outputs.nbytes for u in self._waiting) >= FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        together: dict[object, list[Unit]] = {}
        for unit in self._waiting:
            together.setdefault((unit.start, unit.stop, unit.outputs.shape), []).append(unit)
        if self._cache is not None:
            for units in together.values():
                self._cache.put(self.key, self._title, units)
        self._waiting = []
        self._since = time.monotonic()


class LayerCache(RunCache):
    """What was found of single layers, by name: float64 arrays beside the finished runs of a
    measurement, under its `key` ("" = nothing is kept) and `about`, all else that they depend on.

    They are of no samples of the selection split, and kept as the two halves of every number.
    """

    def __init__(self, cache: Cache | None, key: str, title: str, about: object) -> None:
        super().__init__(cache if key else None, key, title)
        self._about = repr(about)
        self._known = self.find(NO_SAMPLES)

    def get(self, name: str, shape: tuple[int, ...]) -> Doubles | None:
        """The array called `name`; None where it was not found yet."""
        unit = self._known.get(self._run(name))
        if unit is None or unit.outputs.size != 2 * math.prod(shape):
            return None
        return unit.outputs.reshape(-1).view(np.float64).reshape(shape)

    def keep(self, name: str, values: Doubles) -> None:
        """Keep an array under its name."""
        halves = np.ascontiguousarray(values).reshape(1, -1).view(np.float32)
        at = NO_SAMPLES
        self.add(Unit(self._run(name), at.start, at.stop, halves, finite=True, in_full=False))

    def _run(self, name: str) -> str:
        return hashlib.sha256(f"{self._about} {name}".encode()).hexdigest()


def no_run_cache() -> RunCache:
    """A cache of runs that finds and keeps nothing."""
    return RunCache(None, "", "")


def open_run_cache(
    cache: Cache,
    runner: Runner,
    source: ModelSource,
    layers: LayerTable,
    reference: str,
    runs: Sequence[Run],
    *,
    everything: bool,
    entries: int = 0,
    is_quiet: bool = False,
) -> RunCache:
    """The cache of runs of a measurement. Says how much it holds, or why nothing can be, unless it is
    quiet.
    """
    if not is_repeatable(runner.simulator, take(source.selection.inputs, 0, 2)):
        if not is_quiet:
            cache.say("Nothing is kept in the cache: the model keeps state between calls, so that a "
                      "run taken up again would give other figures.")  # fmt: skip
        return no_run_cache()
    key = content_key(source, layers, runner.simulator, reference, everything=everything,
                      entries=entries)  # fmt: skip
    known = cache.begin(key, source.title)
    parts = runner.parts(len(source.selection))
    wanted = [
        (run.layer, run_key(run.assignment), p.start, p.stop) for run in runs[1:] for p in parts
    ]
    missing = [layer for layer, *unit in wanted if tuple(unit) not in known]
    if len(missing) < len(wanted) and not is_quiet:
        measured = {run.layer for run in runs} - {""}
        complete = measured - set(missing)
        share = 1 - len(missing) / len(wanted)
        cache.say(f"Resuming: {share:.0%} of the work found, {len(complete)} of {len(measured)} "
                  "layers whole.")  # fmt: skip
    return RunCache(cache, key, source.title)
