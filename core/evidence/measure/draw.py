"""In which order selection samples are measured: drawn at random, a few of them first.

Whatever is measured so far is then a simple random sample of the split, however its rows are
sorted, and the first batch is small enough to give figures of every layer at once.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.evidence.measure.memory import BATCH, even_parts
from core.evidence.options import FIRST_LOOK
from core.source.batches import Inputs, count, pick

FEW = 4 * FIRST_LOOK
"""Splits of fewer samples are measured at once, and in their own order."""
SEED = 20219


def order(samples: int) -> NDArray[np.int64]:
    """The positions of all samples in the order in which they are measured, shape [N]."""
    if samples < FEW:
        return np.arange(samples)
    return np.random.default_rng(SEED).permutation(samples)


def parts(samples: int, size: int) -> list[slice]:
    """The places of that order in batches of at most `size`, a first look before the others."""
    looks = FIRST_LOOK if samples >= FEW else 0
    edges = [0, *([looks] if looks else []), *range(BATCH, samples, BATCH), samples]
    return [p for a, b in itertools.pairwise(edges) for p in even_parts(a, b, size)]


@dataclass(frozen=True, eq=False)
class Draw:
    """Samples as `inputs` hold them, the `order` [N] in which they are measured, and the `numbers` [N]
    that they have in the selection split.
    """

    inputs: Inputs
    order: NDArray[np.int64]
    numbers: NDArray[np.int64]

    def rows(self, part: slice) -> NDArray[np.int64]:
        """Where the samples of `part` stand in the split."""
        return self.order[part]

    def batch(self, part: slice) -> Any:
        """The inputs of `part`, as copies."""
        return pick(self.inputs, self.rows(part))

    def single(self, row: int) -> tuple[Any, int]:
        """The inputs of the sample at `row` of the split alone, and its number."""
        return pick(self.inputs, np.array([row])), int(self.numbers[row])


def draw(inputs: Inputs, *, is_drawn: bool = True) -> Draw:
    """`inputs`, the selection split, in the order in which they are measured: drawn, or as it is."""
    samples = count(inputs)
    numbers = np.arange(samples)
    return Draw(inputs, order(samples) if is_drawn else numbers, numbers)
