"""The projected cost of maps that differ little: what a search asks for thousands of times.

The same combination of perturbations as the projector's (`core.estimate.combine_perturbations`), kept as
running sums, so that a map a few layers away costs a few rows. Costs equal the projector's
divergence where every sample is looked at; a test compares them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.estimate.combine_perturbations import Form, measured_whole
from core.estimate.interactions import Interactions, interactions_of
from core.estimate.loss_function import Target, loss_function
from core.estimate.overlaps import NOTHING_SHARED, overlaps
from core.estimate.subsampled_gains import CACHED_ELEMENTS, SubsampledGains
from core.evidence.evidence import Evidence

Doubles = NDArray[np.float64]
Codes = NDArray[np.int8]

Change = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Layers, and the code that each of them gets."""


@dataclass(frozen=True, eq=False)
class Place:
    """A map with its running sums. `sums` is [1, KA] for added changes, [2, KA] for squared
    rises and falls; `chosen` and `squared` [P] are shares of energy for the pair share.
    """

    codes: Codes
    sums: Doubles
    chosen: Doubles
    squared: Doubles
    cost: float


class MapObjective:
    """Projected cost of maps under one form and one target.

    `codes` are 0 for the reference, 1 + the position of a simulated precision otherwise, -1 for
    a layer that does nothing.
    """

    def __init__(self, evidence: Evidence, form: Form, target: Target = "divergence") -> None:
        self._loss, counted = loss_function(evidence, target)
        self.power, self._exponent = form.power, form.residual
        self.precisions, self.layers = evidence.perturbations.shape[:2]
        self._overlaps = overlaps(evidence) if form.once else NOTHING_SHARED
        self.interactions: Interactions = interactions_of(self._loss, self.layers, self._overlaps)
        self._rows = self._loss.rows
        energy = evidence.energy
        total = energy.sum(axis=1, keepdims=True)
        self._share = np.divide(energy, total, out=np.zeros_like(energy), where=total > 0)
        self._pairs = 1.0 - np.square(self._share).sum(axis=1)
        self._whole = whole = self._loss.of_samples(evidence.whole, counted)
        if self.power == 2:
            self._rises = np.square(np.maximum(self._rows, 0))
            self._falls = np.square(np.minimum(self._rows, 0))
            self._subsampled = SubsampledGains(self._loss, self._rises, self._falls, self.layers)
        self._residuals = np.zeros((self.precisions, whole.shape[1]))
        if self._exponent is not None:
            for p in range(self.precisions):
                rows = np.arange(self.layers) + p * self.layers
                sums = self._sums(rows)
                self._residuals[p] = whole[p] - self._combined(sums[None])[0]
        self.alone = self._alone()

    # ---- whole maps

    def place(self, codes: Codes) -> Place:
        """The running sums of a map."""
        layers = np.flatnonzero(codes > 0)
        which = codes[layers].astype(np.int64) - 1
        rows = which * self.layers + layers
        sums = self._sums(rows)
        shares = self._share[which, layers]
        chosen, squared = np.zeros(self.precisions), np.zeros(self.precisions)
        chosen += np.bincount(which, shares, self.precisions)
        squared += np.bincount(which, np.square(shares), self.precisions)
        cost = self._cost(sums[None], chosen[None], squared[None])[0]
        return Place(codes, sums, chosen, squared, float(cost))

    def costs(self, codes: NDArray[np.int8]) -> Doubles:
        """Projected cost of maps (C, L) -> (C,), summed in single precision."""
        found = np.zeros(len(codes))
        step = max(1, 4_000_000 // max(self._loss.anchor.size, 1))
        for start in range(0, len(codes), step):
            part = codes[start : start + step]
            picked = np.stack([part == p + 1 for p in range(self.precisions)], axis=1)
            chosen_rows = picked.reshape(len(part), -1)
            flat = chosen_rows.astype(np.float32)
            if self.power == 1:
                flat *= self._overlaps.weights(chosen_rows).astype(np.float32)
            parts = (self._rows,) if self.power == 1 else (self._rises, self._falls)
            sums = np.stack([flat @ rows for rows in parts], axis=1).astype(np.float64)
            chosen = np.einsum("cpl,pl->cp", picked, self._share)
            squared = np.einsum("cpl,pl->cp", picked, np.square(self._share))
            near = max(1, CACHED_ELEMENTS // max(sums.shape[2], 1))
            for at in range(0, len(part), near):
                block = slice(at, at + near)
                found[start + at : start + at + near] = self._cost(
                    sums[block], chosen[block], squared[block]
                )
        return found

    def moved(self, place: Place, changes: Sequence[Change]) -> Doubles:
        """Cost (C,) of the maps that differ from `place` by each of `changes`."""
        if not changes:
            return np.zeros(0)
        step = max(1, CACHED_ELEMENTS // max(place.sums.shape[1], 1))
        found = []
        for start in range(0, len(changes), step):
            shifted = [self._shift(place, *change) for change in changes[start : start + step]]
            sums, chosen, squared = (np.stack(part) for part in zip(*shifted, strict=True))
            found.append(self._cost(sums, chosen, squared))
        return np.concatenate(found)

    def after(self, place: Place, change: Change) -> Place:
        """The place that `change` leads to."""
        sums, chosen, squared = self._shift(place, *change)
        codes = place.codes.copy()
        codes[change[0]] = change[1]
        cost = self._cost(sums[None], chosen[None], squared[None])[0]
        return Place(codes, sums, chosen, squared, float(cost))

    # ---- predictions

    def gains(self, place: Place) -> Doubles:
        """Predicted change of the cost (P + 1, L) if a layer alone changes to each code.

        First order in the outputs for added changes: the caller adds the curvature of the move.
        """
        current = np.maximum(place.codes, 0).astype(np.int64)
        column = np.arange(self.layers)
        change = self._changed(place.sums[None], place.chosen[None], place.squared[None])[0]
        slope = self._loss.slope(change)
        if self.power == 1:
            found = np.zeros((self.precisions + 1, self.layers))
            own = (self._rows @ slope.astype(np.float32)).astype(np.float64)
            gained = self._overlaps.gains(self._picked(place.codes), own)
            found[1:] = gained.reshape(self.precisions, -1)
            found -= found[current, column]
        else:
            found = self._subsampled.gains(place.codes, place.sums, slope, change)
        if self._exponent is not None:
            found += self._residual_gains(place, slope, current, self._exponent)
        found[current, column] = 0.0
        return found

    def _residual_gains(
        self, place: Place, slope: Doubles, current: NDArray[np.int64], exponent: float
    ) -> Doubles:
        pull = self._residuals @ slope  # [P]
        inside = np.square(place.chosen) - place.squared
        now = self._power(inside, exponent)
        joined = self._power(inside[:, None] + 2 * place.chosen[:, None] * self._share, exponent)
        left = self._power(
            inside[:, None] - 2 * (place.chosen[:, None] - self._share) * self._share, exponent
        )
        gains = np.zeros((self.precisions + 1, self.layers))
        gains[1:] = (joined - now[:, None]) * pull[:, None]
        layers = np.flatnonzero(place.codes > 0)
        which = current[layers] - 1
        gains[:, layers] += (left[which, layers] - now[which]) * pull[which]
        return gains

    # ---- arithmetic

    def _alone(self) -> Doubles:
        """Cost (P + 1, L) of each layer alone in each code."""
        found = np.zeros((self.precisions + 1, self.layers))
        for p in range(self.precisions):
            block = self._rows[p * self.layers : (p + 1) * self.layers]
            step = max(1, 4_000_000 // max(block.shape[1], 1))
            for start in range(0, self.layers, step):
                part = block[start : start + step].astype(np.float64)
                found[p + 1, start : start + step] = self._loss.cost(part)
        return found

    def _sums(self, rows: NDArray[np.int64]) -> Doubles:
        if self.power == 1:
            weights = self._overlaps.together(rows)
            return np.asarray((weights @ self._rows[rows].astype(np.float64))[None])
        return np.stack(
            [part[rows].sum(axis=0, dtype=np.float64) for part in (self._rises, self._falls)]
        )

    def _picked(self, codes: Codes) -> NDArray[np.bool_]:
        """The rows (P * L,) of a map."""
        return np.asarray(codes == np.arange(1, self.precisions + 1)[:, None]).ravel()

    def _weigh_again(
        self, total: Doubles, before: Codes, layers: NDArray[np.int64], codes: NDArray[np.int64]
    ) -> None:
        """Change `total`, a sum of rows, by what other rows weigh beside those of `layers`, and
        these beside them, once they have `codes`.
        """
        partners = self._overlaps.partners
        after = before.copy()
        after[layers] = codes
        touched = set()
        for layer in layers.tolist():
            for code in (int(before[layer]), int(after[layer])):
                row = (code - 1) * self.layers + layer
                if code > 0 and row in partners:
                    touched |= {row, *(other for other, _ in partners[row])}
        for row in touched:
            one, code = row % self.layers, row // self.layers + 1
            shift = 0.0
            for sign, given in ((-1.0, before), (1.0, after)):
                if given[one] == code:
                    beside = [k for o, k in partners[row]
                              if given[o % self.layers] == o // self.layers + 1]  # fmt: skip
                    shift += sign * (math.prod(beside) - 1.0)
            if shift:
                total += shift * self._rows[row]

    def _shift(
        self, place: Place, layers: NDArray[np.int64], codes: NDArray[np.int64]
    ) -> tuple[Doubles, Doubles, Doubles]:
        # Few rows change: adding them one by one beats gathering them.
        sums = place.sums.copy()
        chosen, squared = place.chosen.copy(), place.squared.copy()
        parts = (self._rows,) if self.power == 1 else (self._rises, self._falls)
        before = place.codes[layers].tolist()
        for layer, old, new in zip(layers.tolist(), before, codes.tolist(), strict=True):
            if old == new:
                continue
            for code, sign in ((old, -1.0), (new, 1.0)):
                if code <= 0:
                    continue
                row = (code - 1) * self.layers + layer
                for total, part in zip(sums, parts, strict=True):
                    (np.add if sign > 0 else np.subtract)(total, part[row], out=total)
                share = self._share[code - 1, layer]
                chosen[code - 1] += sign * share
                squared[code - 1] += sign * share * share
        if self.power == 2:
            np.maximum(sums, 0.0, out=sums)
        elif self._overlaps.partners:
            self._weigh_again(sums[0], place.codes, layers, codes)
        return sums, chosen, squared

    def _combined(self, sums: Doubles) -> Doubles:
        """Sums (C, 1 or 2, KA) -> changes (C, KA)."""
        if self.power == 1:
            return np.asarray(sums[:, 0])
        return np.asarray(np.sqrt(sums[:, 0]) - np.sqrt(sums[:, 1]))

    def _power(self, inside: Doubles, exponent: float) -> Doubles:
        pairs = self._pairs.reshape(-1, *([1] * (inside.ndim - 1)))
        share = np.divide(inside, pairs, out=np.zeros_like(inside), where=pairs > 0)
        return np.asarray(np.clip(share, 0.0, 1.0) ** exponent)

    def _cost(self, sums: Doubles, chosen: Doubles, squared: Doubles) -> Doubles:
        return self._loss.cost(self._changed(sums, chosen, squared))

    def _changed(self, sums: Doubles, chosen: Doubles, squared: Doubles) -> Doubles:
        """Changes (C, KA) of maps from their sums, with the residual."""
        change = self._combined(sums)
        if self._exponent is None:
            whole = measured_whole(chosen)
            if whole.any() and len(self._whole):
                change = change.copy()  # the sums are still needed
                change[whole.any(axis=1)] = self._whole[np.nonzero(whole)[1]]
            return change
        inside = np.square(chosen) - squared  # [C, P]
        return np.asarray(change + self._power(inside.T, self._exponent).T @ self._residuals)
