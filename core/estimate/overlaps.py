"""What is counted once of two layers that round the same tensor.

Their changes are Δa = a + t and Δb = b + t, t what the rounding of that tensor does and a, b
unlike each other and t: so t² = max(⟨Δa, Δb⟩, 0). Together they change the outputs by a + b + t,
whose square is Δa² + Δb² - t², and not by Δa + Δb, whose square is Δa² + Δb² + 2 t². Both are
weighed by the root of the ratio.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from core.evidence.evidence import Evidence

Doubles = NDArray[np.float64]
AT_ONCE = 2**22
"""Outputs of pairs that are multiplied at once."""


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Pairs of rows that count less together. Rows are (precision, layer), in that order, `rows`
    of them. `log_keep` [S] is the logarithm of the weight that each of a pair has beside the
    other, from -0.7 to 0.
    """

    rows: int
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    log_keep: Doubles

    def weights(self, picked: NDArray[np.bool_]) -> Doubles:
        """Weight of every row [C, rows] in the sums of the maps that have picked some, as if each
        row were one of them.
        """
        if not len(self.first):
            return np.ones(picked.shape)
        rows, starts, others, logs = self._ends
        found = np.ones(picked.shape)
        found[:, rows] = np.exp(np.add.reduceat(picked[:, others] * logs, starts, axis=1))
        return found

    def together(self, rows: NDArray[np.int64]) -> Doubles:
        """Weight of each of `rows` in the sum of them all."""
        if not len(self.first):
            return np.ones(len(rows))
        picked = np.zeros((1, self.rows), np.bool_)
        picked[0, rows] = True
        return np.asarray(self.weights(picked)[0, rows])

    @cached_property
    def _ends(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], Doubles]:
        """Rows that are in a pair, and where the others of each start, with the logarithms of what
        it weighs beside them.
        """
        ends = np.concatenate([self.first, self.second])
        order = np.argsort(ends, kind="stable")
        rows, starts = np.unique(ends[order], return_index=True)
        others = np.concatenate([self.second, self.first])[order]
        return rows, starts, others, np.tile(self.log_keep, 2)[order]

    @cached_property
    def partners(self) -> dict[int, list[tuple[int, float]]]:
        """Row -> the rows that it shares a tensor with, and what each weighs beside the other."""
        found: dict[int, list[tuple[int, float]]] = {}
        for a, b, log in zip(
            self.first.tolist(), self.second.tolist(), self.log_keep.tolist(), strict=True
        ):
            found.setdefault(a, []).append((b, float(np.exp(log))))
            found.setdefault(b, []).append((a, float(np.exp(log))))
        return found

    def gains(self, picked: NDArray[np.bool_], own: Doubles) -> Doubles:
        """What a sum over the rows `picked` (rows,) of numbers `own` (rows,) would gain with each
        row besides, and what it has of each that is picked: (rows,).
        """
        if not len(self.first):
            return own
        weighed = self.weights(picked[None])[0] * own
        held = np.where(picked, weighed, 0.0)
        keep = np.exp(self.log_keep)
        lost = np.zeros(self.rows)
        for row, other in ((self.first, self.second), (self.second, self.first)):
            share = (1 - keep) / np.where(picked[row], keep, 1.0)
            np.add.at(lost, row, held[other] * share)
        return np.asarray(weighed - lost)

    def between(self, matrix: Doubles) -> Doubles:
        """A quadratic form [rows, rows] of which two rows of a pair have their weights together."""
        if not len(self.first):
            return matrix
        found, a, b = matrix.copy(), self.first, self.second
        alone = matrix[a, a] + matrix[b, b]
        together = np.exp(2 * self.log_keep) * (alone + 2 * matrix[a, b])
        found[a, b] = found[b, a] = (together - alone) / 2
        return found


NOTHING_SHARED = Overlaps(0, np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


def overlaps(evidence: Evidence) -> Overlaps:
    """The pairs of rows of `evidence` whose layers share a tensor, in every two precisions."""
    precisions, layers, samples, outputs = evidence.perturbations.shape
    flat = evidence.perturbations.reshape(precisions * layers, samples * outputs)
    ways = np.arange(precisions) * layers
    first = (evidence.shared[:, 0] + ways[:, None, None]).repeat(precisions, 1).ravel()
    second = (evidence.shared[:, 1] + ways[None, :, None]).repeat(precisions, 0).ravel()
    energy = evidence.energy.ravel()
    product = np.zeros(len(first))
    step = max(1, AT_ONCE // max(flat.shape[1], 1))
    for start in range(0, len(first), step):
        some = slice(start, start + step)
        product[some] = np.einsum(
            "sn,sn->s", flat[first[some]], flat[second[some]], dtype=np.float64
        )
    kept = product > 0
    first, second, product = first[kept], second[kept], product[kept]
    alone = energy[first] + energy[second]
    log_keep = np.log((alone - product) / (alone + 2 * product)) / 2
    return Overlaps(precisions * layers, first, second, log_keep)
