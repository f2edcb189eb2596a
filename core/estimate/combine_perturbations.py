"""Combining perturbations measured one layer at a time into the change of a whole map.

A *form* says how they add. Where layers disturb different things, changes add up (power 1).
Where they disturb the same few samples, for instance by tipping a discrete choice inside the
model, a second layer adds little to the first, and the root of summed squares (power 2) is
closer. What two layers that round the same tensor share may be in a sum once. What the uniform maps show beyond the combination, the residual, is shared out by the
pairs of layers that a map brings together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from core.estimate.overlaps import Overlaps, overlaps
from core.evidence.evidence import Evidence
from core.lru import LRU

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Form:
    """How perturbations combine.

    `power` 1 adds them; 2 takes the root of the sum of squares, of rises and falls apart.
    `residual` is the exponent of the pair share with which the residual enters; None leaves it
    out. 1 suits interactions between pairs, 0.5 those that show as soon as a few layers meet. With
    `once` a sum has what two layers share once (`core.estimate.overlaps`).
    """

    power: int
    residual: float | None
    once: bool = False

    def in_words(self) -> str:
        """The form's name for people."""
        how = "sum" if self.power == 1 else "root of summed squares"
        how += ", what layers share once" if self.once else ""
        if self.residual is None:
            return how
        return f"{how}, residual with pair share^{self.residual:g}"


FIRST_ORDER = Form(1, None)
UNJUDGED = Form(1, 1.0)
"""What is taken where no probe tells."""
FORMS = (
    FIRST_ORDER, UNJUDGED, Form(1, 0.5), Form(1, None, once=True), Form(1, 1.0, once=True),
    Form(1, 0.5, once=True), Form(2, 1.0), Form(2, 0.5),
)  # fmt: skip
"""Simplest first: a tie in cross-validation goes to the earlier one."""


def measured_whole(chosen: Doubles) -> NDArray[np.bool_]:
    """Whether a map is all that disturbs the outputs in one precision, which was run as it is:
    [C, P], from what it has `chosen` of each precision's energy [C, P], as shares.
    """
    alone = np.isclose(chosen.sum(axis=1), 1.0, rtol=0, atol=1e-9)
    return np.asarray(np.isclose(chosen, 1.0, rtol=0, atol=1e-9) & alone[:, None])


class Combiner:
    """Changes of whole maps from one model's evidence, under any form.

    `codes` are 0 for the reference, 1 + the position of a simulated precision otherwise, -1 for
    a layer that does nothing. `like` is the evidence that tells how layers weigh and overlap, where
    the perturbations are no outputs.
    """

    def __init__(self, evidence: Evidence, like: Evidence | None = None) -> None:
        self._shape = evidence.baseline.shape
        precisions, self._layers, samples, outputs = evidence.perturbations.shape
        shape = (precisions * self._layers, samples * outputs)
        self._rows = np.ascontiguousarray(evidence.perturbations).reshape(shape)
        self._whole = evidence.whole.reshape(-1, samples * outputs).astype(np.float64)
        like = evidence if like is None else like
        self._like, energy = like, like.energy
        total = energy.sum(axis=1, keepdims=True)
        self._share = np.divide(energy, total, out=np.zeros_like(energy), where=total > 0)
        self._residuals: LRU[tuple[int, int, bool], Doubles] = LRU(3 * precisions)

    @cached_property
    def _overlaps(self) -> Overlaps:
        return overlaps(self._like)

    @cached_property
    def _squares(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Squared rises and squared falls of every row."""
        return np.square(np.maximum(self._rows, 0)), np.square(np.minimum(self._rows, 0))

    def change(self, codes: NDArray[np.int8], form: Form) -> Doubles:
        """Change of the outputs [N, K] under `codes` (L,)."""
        return next(self.changes(codes, (form,)))

    def changes(
        self, codes: NDArray[np.int8], forms: tuple[Form, ...] = FORMS
    ) -> Iterator[Doubles]:
        """Change of the outputs [N, K] under `codes` (L,), by each of `forms`."""
        layers = np.flatnonzero(codes > 0)
        which = codes[layers].astype(np.int64) - 1
        within = {int(p): self._pair_share(int(p), layers[which == p]) for p in np.unique(which)}
        combined: dict[tuple[int, bool], Doubles] = {}
        for form in forms:
            key = form.power, form.once and len(self._overlaps.first) > 0
            if key not in combined:
                combined[key] = self._combined(which * self._layers + layers, form)
            yield self._completed(combined[key].copy(), layers, which, within, form)

    def _completed(
        self, total: Doubles, layers: NDArray[np.intp], which: NDArray[np.int64],
        within: dict[int, float], form: Form,
    ) -> Doubles:  # fmt: skip
        if form.residual is not None:
            for p, share in within.items():
                total += share**form.residual * self._residual(p, form)
        elif len(self._whole):
            chosen = np.zeros((1, len(self._share)))
            np.add.at(chosen[0], which, self._share[which, layers])
            for whole in np.flatnonzero(measured_whole(chosen)):
                total = self._whole[whole]
        return total.reshape(self._shape)

    def _combined(self, rows: NDArray[np.int64], form: Form) -> Doubles:
        if form.power == 1:
            own = self._rows[rows]
            if form.once:
                own *= self._overlaps.together(rows)[:, None].astype(np.float32)
            added: Doubles = own.sum(axis=0, dtype=np.float64)
            return added
        rises, falls = (squares[rows].sum(axis=0, dtype=np.float64) for squares in self._squares)
        combined: Doubles = np.sqrt(rises) - np.sqrt(falls)
        return combined

    def _residual(self, p: int, form: Form) -> Doubles:
        """What the uniform map in precision `p` shows beyond the combination of all layers."""

        def make() -> Doubles:
            rows = np.arange(self._layers) + p * self._layers
            residual: Doubles = self._whole[p] - self._combined(rows, form)
            return residual

        return self._residuals.get((p, form.power, form.once), make)

    def _pair_share(self, p: int, layers: NDArray[np.int64]) -> float:
        """Share of all pairs of layers, weighted by energy, that lies within `layers`.

        0 for a single layer, whose change was measured, and 1 for all of them.
        """
        shares = self._share[p]
        pairs = 1.0 - float(np.square(shares).sum())
        if pairs <= 0:
            return 0.0
        chosen = shares[layers]
        inside = float(chosen.sum()) ** 2 - float(np.square(chosen).sum())
        return min(max(inside / pairs, 0.0), 1.0)
