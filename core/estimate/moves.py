"""The projected cost of maps that differ little: what a search asks for thousands of times.

The same combination of perturbations as the projector's (`core.estimate.combine`), kept as
running sums, so that a map a few layers away costs a few rows. Costs equal the projector's
divergence where every sample is looked at; a test compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from core.estimate.combine import Form
from core.estimate.interactions import Interactions, interactions_of
from core.estimate.place import Codes, Doubles, Place
from core.estimate.weighing import Target, weighing
from core.evidence.evidence import Evidence

Change = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Layers, and the code that each of them gets."""

CACHED_ELEMENTS = 40_000
"""Numbers that are worked on together: what a processor keeps close by."""

GLANCED = 1_536
SEED = 3_181
"""Outputs that a prediction under roots looks at: it only ranks what is evaluated in full."""

EXACT_ELEMENTS = 700_000
"""Up to this many numbers, changes under roots are predicted element by element."""


class MapObjective:
    """Projected cost of maps under one form and one target.

    `codes` are 0 for the reference, 1 + the position of a simulated precision otherwise, -1 for
    a layer that does nothing.
    """

    def __init__(self, evidence: Evidence, form: Form, target: Target = "divergence") -> None:
        self._weighed, counted = weighing(evidence, target)
        self.form = form
        self.precisions, self.layers = evidence.perturbations.shape[:2]
        self.interactions: Interactions = interactions_of(self._weighed, self.layers)
        self._rows = self._weighed.rows
        energy = evidence.energy
        total = energy.sum(axis=1, keepdims=True)
        self._share = np.divide(energy, total, out=np.zeros_like(energy), where=total > 0)
        self._pairs = 1.0 - np.square(self._share).sum(axis=1)
        whole = self._weighed.of_samples(evidence.whole, counted)
        if form.power == 2:
            self._rises = np.square(np.maximum(self._rows, 0))
            self._falls = np.square(np.minimum(self._rows, 0))
        self._residuals = np.zeros((self.precisions, whole.shape[1]))
        if form.residual is not None:
            for p in range(self.precisions):
                rows = np.arange(self.layers) + p * self.layers
                sums = self._sums(rows, np.ones(len(rows)))
                self._residuals[p] = whole[p] - self._combined(sums[None])[0]
        self.alone = self._alone()

    # ---- whole maps

    def place(self, codes: Codes) -> Place:
        """The running sums of a map."""
        layers = np.flatnonzero(codes > 0)
        which = codes[layers].astype(np.int64) - 1
        rows = which * self.layers + layers
        sums = self._sums(rows, np.ones(len(rows)))
        shares = self._share[which, layers]
        chosen, squared = np.zeros(self.precisions), np.zeros(self.precisions)
        chosen += np.bincount(which, shares, self.precisions)
        squared += np.bincount(which, np.square(shares), self.precisions)
        cost = self._cost(sums[None], chosen[None], squared[None])[0]
        return Place(codes, sums, chosen, squared, float(cost))

    def costs(self, codes: NDArray[np.int8]) -> Doubles:
        """Projected cost of maps (C, L) -> (C,), summed in single precision."""
        found = np.zeros(len(codes))
        step = max(1, 4_000_000 // max(self._weighed.anchor.size, 1))
        for start in range(0, len(codes), step):
            part = codes[start : start + step]
            picked = np.stack([part == p + 1 for p in range(self.precisions)], axis=1)
            flat = picked.reshape(len(part), -1).astype(np.float32)
            parts = (self._rows,) if self.form.power == 1 else (self._rises, self._falls)
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
        change = self._change(place)
        slope = self._weighed.slope(change)
        gains = np.zeros((self.precisions + 1, self.layers))
        current = np.maximum(place.codes, 0).astype(np.int64)
        column = np.arange(self.layers)
        if self.form.power == 1:
            gains[1:] = (self._rows @ slope.astype(np.float32)).reshape(self.precisions, -1)
            gains -= gains[current, column]
        elif len(self._rows) * len(self._glanced_columns) <= EXACT_ELEMENTS:
            self._root_gains(gains, place, slope, change)
        else:
            self._sloped_gains(gains, place, slope, current)
        if self.form.residual is not None:
            gains += self._residual_gains(place, slope, current)
        gains[current, column] = 0.0
        return gains

    def _root_gains(self, gains: Doubles, place: Place, slope: Doubles, change: Doubles) -> None:
        """Second-order gains under roots, element by element of some answers. Mutates `gains`."""
        picked, weight = self._glanced
        bend = self._weighed.bend(change, picked)
        columns = self._glanced_columns
        steep = slope[columns].astype(np.float32) * np.float32(weight)
        rises, falls = place.sums[:, columns].astype(np.float32)
        now = np.sqrt(rises) - np.sqrt(falls)
        step = max(1, CACHED_ELEMENTS // max(len(columns), 1))
        every_up, every_down = self._glanced_squares
        active = np.flatnonzero(place.codes >= 0)
        for start in range(0, len(active), step):
            layers = active[start : start + step]
            codes = place.codes[layers].astype(np.int64)
            own = (np.maximum(codes, 1) - 1) * self.layers + layers
            held = (codes > 0).astype(np.float32)[:, None]
            up = np.maximum(rises - held * every_up[own], 0)
            down = np.maximum(falls - held * every_down[own], 0)
            for code in range(self.precisions + 1):
                if code == 0:
                    moved = np.sqrt(up) - np.sqrt(down)
                else:
                    rows = (code - 1) * self.layers + layers
                    moved = np.sqrt(up + every_up[rows])
                    moved -= np.sqrt(down + every_down[rows])
                moved -= now
                gains[code, layers] = moved @ steep + bend(moved) * weight

    @cached_property
    def _glanced(self) -> tuple[NDArray[np.int64], float]:
        """Answers that predictions under roots look at, and what one of them stands for."""
        outputs, answers = self._weighed.anchor.shape
        most = max(GLANCED // max(outputs, 1), 64)
        if answers <= most:
            return np.arange(answers), 1.0
        rng = np.random.default_rng(SEED)
        return np.sort(rng.choice(answers, most, replace=False)), answers / most

    @cached_property
    def _glanced_columns(self) -> NDArray[np.int64]:
        outputs, answers = self._weighed.anchor.shape
        picked, _ = self._glanced
        return np.asarray((np.arange(outputs)[:, None] * answers + picked).ravel())

    @cached_property
    def _glanced_squares(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        columns = self._glanced_columns
        return (
            np.ascontiguousarray(self._rises[:, columns]),
            np.ascontiguousarray(self._falls[:, columns]),
        )

    def _sloped_gains(
        self, gains: Doubles, place: Place, slope: Doubles, current: NDArray[np.int64]
    ) -> None:
        """First-order gains under roots. Mutates `gains`."""
        rises, falls = place.sums
        floor_up, floor_down = self._rises.mean() + 1e-30, self._falls.mean() + 1e-30
        up = (slope / (2 * np.sqrt(rises + floor_up))).astype(np.float32)
        down = (slope / (2 * np.sqrt(falls + floor_down))).astype(np.float32)
        gains[1:] = (self._rises @ up - self._falls @ down).reshape(self.precisions, -1)
        gains -= gains[current, np.arange(self.layers)]

    def _residual_gains(self, place: Place, slope: Doubles, current: NDArray[np.int64]) -> Doubles:
        exponent = self.form.residual or 1.0
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
                found[p + 1, start : start + step] = self._weighed.cost(part)
        return found

    def _sums(self, rows: NDArray[np.int64], signs: Doubles) -> Doubles:
        if self.form.power == 1:
            return np.asarray((signs @ self._rows[rows].astype(np.float64))[None])
        return np.stack(
            [signs @ part[rows].astype(np.float64) for part in (self._rises, self._falls)]
        )

    def _shift(
        self, place: Place, layers: NDArray[np.int64], codes: NDArray[np.int64]
    ) -> tuple[Doubles, Doubles, Doubles]:
        # Few rows change: adding them one by one beats gathering them.
        sums = place.sums.copy()
        chosen, squared = place.chosen.copy(), place.squared.copy()
        parts = (self._rows,) if self.form.power == 1 else (self._rises, self._falls)
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
        if self.form.power == 2:
            np.maximum(sums, 0.0, out=sums)
        return sums, chosen, squared

    def _combined(self, sums: Doubles) -> Doubles:
        """Sums (C, 1 or 2, KA) -> changes (C, KA)."""
        if self.form.power == 1:
            return np.asarray(sums[:, 0])
        return np.asarray(np.sqrt(sums[:, 0]) - np.sqrt(sums[:, 1]))

    def _power(self, inside: Doubles, exponent: float) -> Doubles:
        pairs = self._pairs.reshape(-1, *([1] * (inside.ndim - 1)))
        share = np.divide(inside, pairs, out=np.zeros_like(inside), where=pairs > 0)
        return np.asarray(np.clip(share, 0.0, 1.0) ** exponent)

    def _cost(self, sums: Doubles, chosen: Doubles, squared: Doubles) -> Doubles:
        change = self._combined(sums)
        if self.form.residual is not None:
            inside = np.square(chosen) - squared  # [C, P]
            weights = self._power(inside.T, self.form.residual).T
            change = change + weights @ self._residuals
        return self._weighed.cost(change)

    def _change(self, place: Place) -> Doubles:
        change = self._combined(place.sums[None])[0]
        if self.form.residual is not None:
            inside = np.square(place.chosen) - place.squared
            change = change + self._power(inside, self.form.residual) @ self._residuals
        return np.asarray(change)
