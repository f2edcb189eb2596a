"""Handing on what is measured so far, seldom enough that measuring hardly waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from core.evidence.assemble import Assembler
from core.evidence.evidence import Evidence, Partial

EVERY_S = 2.0
MOST_SHARE = 0.02
"""Most part of the time that goes into partial results."""

Publish = Callable[[Evidence, Partial], None]


class Glimpses:
    """Partial evidence of a measurement, given to `publish` (nobody if None) from time to time.

    The first comes with the first layer, each later one when `EVERY_S` have passed and the last
    one took no more than `MOST_SHARE` of the time since.
    """

    def __init__(self, assembler: Assembler, publish: Publish | None) -> None:
        self._assembler, self._publish = assembler, publish
        self._due = 0.0

    def look(
        self, outputs: NDArray[np.float32], finite: NDArray[np.bool_], done: NDArray[np.bool_],
        parts: Sequence[slice], *, last: bool = False,
    ) -> None:  # fmt: skip
        """Take note that a run is finished; `last` says that no other follows."""
        start = time.monotonic()
        if self._publish is None or (start < self._due and not last):
            return
        found = self._assembler.partial(outputs, finite, done, parts)
        if found is not None:
            self._publish(*found)
            end = time.monotonic()
            self._due = end + max(EVERY_S, (end - start) / MOST_SHARE)
