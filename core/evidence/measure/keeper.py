"""What is held of the outputs of runs over one split, batch by batch: never all where few are kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.evidence import reduction
from core.evidence.measure.outputs import Floats, OutputReader
from core.evidence.reduction import Entries
from core.source.data import Split

Rows = slice | NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Keeper:
    """Holds of each run what can be compared with the reference's outputs on the same samples.

    `entries` [N, steps, E] are the reference's own, where distributions are reduced; `everything`
    says that all outputs are held, because a person's metric reads them.
    """

    reader: OutputReader
    entries: Entries | None = None
    everything: bool = False

    def hold(self, values: Floats, rows: Rows = slice(None)) -> Floats:
        """What is held of all outputs of a batch, whose samples stand at `rows` of the split."""
        if self.entries is not None:
            return self.reader.reduce(values, self.entries[rows])
        return values if self.everything else self.reader.picked(values)

    def hold_all(self, batches: Iterable[Floats]) -> Floats:
        """What is held of all outputs of a run, which come batch by batch."""
        found, first = list[Floats](), 0
        for values in batches:
            found.append(self.hold(values, slice(first, first + len(values))))
            first += len(values)
        return np.concatenate(found)

    def read(self, held: Floats) -> Floats:
        """The kept logits or values [N, K] of what is held."""
        if self.entries is not None:
            return held
        return self.reader.keep(held) if self.everything else self.reader.read(held)

    def targets(self, split: Split) -> NDArray[Any] | None:
        """Targets of the split beside what is kept: classes as places among the entries."""
        given = self.reader.targets(split)
        if given is None or self.entries is None:
            return given
        rows = reduction.places(self.entries, given.reshape(self.entries.shape[:2]))
        return rows.reshape(given.shape)


def keep(
    reader: OutputReader, split: Split, batches: Iterable[Floats], *, everything: bool = False,
    order: NDArray[np.int64] | None = None,
) -> tuple[Keeper, Floats]:  # fmt: skip
    """What to hold of runs over `split`, and that of the reference, whose outputs `batches` are: of
    the samples in `order` [N] where it is given, in that of the split else.

    Raises `DataError` where targets do not fit the outputs.
    """
    back = slice(None) if order is None else np.argsort(order)
    if not reader.entries:
        keeper = Keeper(reader, everything=everything)
        return keeper, keeper.hold_all(batches)[back]
    targets = reader.targets(split)
    if targets is not None and order is not None:
        targets = targets[order]
    found, held, first = list[Entries](), list[Floats](), 0
    for values in batches:
        own = None if targets is None else targets[first : first + len(values)]
        found.append(reader.likeliest(values, own))
        held.append(reader.reduce(values, found[-1]))
        first += len(values)
    return Keeper(reader, np.concatenate(found)[back]), np.concatenate(held)[back]
