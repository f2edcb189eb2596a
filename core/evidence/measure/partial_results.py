"""Handing on what is measured so far, beside the measurement and seldom enough not to slow it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from core.evidence.evidence import Evidence, Partial
from core.evidence.measure.assemble import Assembler

EVERY_S = 1.0
MOST_SHARE = 0.02
"""Most part of the time that goes into partial results."""

Publish = Callable[[Evidence, Partial], None]


class PartialResults:
    """Partial evidence of a measurement, given to `publish` (nobody if None) from time to time.

    A context manager around the measurement. A thread of its own publishes the first finished
    layer at once and later ones when `EVERY_S` have passed and the last time took no more than
    `MOST_SHARE` of the time since; so what is finished before a long run is seen during it. The
    last state is published at the end, also of a measurement that is interrupted.
    """

    def __init__(self, assembler: Assembler, publish: Publish | None) -> None:
        self._assembler, self._publish = assembler, publish
        self._outputs: NDArray[np.float32] | None = None
        self._finite = self._done = np.zeros(0, dtype=np.bool_)
        self._rows: Sequence[NDArray[np.int64]] = ()
        self._fresh, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def watch(
        self, outputs: NDArray[np.float32], finite: NDArray[np.bool_], done: NDArray[np.bool_],
        rows: Sequence[NDArray[np.int64]],
    ) -> None:  # fmt: skip
        """Say where the measurement leaves its results; `done` is set when the others are. `rows` are
        where the samples of each batch stand.
        """
        self._outputs, self._finite, self._done, self._rows = outputs, finite, done, rows

    def look(self) -> None:
        """Take note that a run is finished."""
        self._fresh.set()

    def __enter__(self) -> Self:
        if self._publish is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._publish is not None:
            self._over.set()
            self._fresh.set()
            self._thread.join()
            self._tell()

    def _keep(self) -> None:
        while not self._over.is_set():
            self._fresh.wait()
            self._fresh.clear()
            if self._over.is_set():
                return
            start = time.monotonic()
            self._tell()
            self._over.wait(max(EVERY_S, (time.monotonic() - start) / MOST_SHARE))

    def _tell(self) -> None:
        if self._publish is None or self._outputs is None:
            return
        done = self._done.copy()  # what becomes finished from here on is seen the next time
        found = self._assembler.partial(self._outputs, self._finite, done, self._rows)
        if found is not None:
            self._publish(*found)
