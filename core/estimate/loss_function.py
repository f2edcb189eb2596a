"""What a change of the outputs costs, sample by sample, and how sharply that cost bends.

The *target* of a search is either how far the outputs move (divergence: KL of classes, squared
change over variance of values), or a loss against labels (cross-entropy, squared error over the
same variance). Both have the second derivative F = diag(p) - p pT for classes and the identity
for values; the labels add a linear term.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from core.errors import PolicyError
from core.evidence.evidence import Evidence
from core.evidence.scorers.logits import log_softmax

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]

Target = Literal["divergence", "labels"]
TARGETS: tuple[Target, ...] = get_args(Target)

MAX_ELEMENTS = 32_768
"""Outputs that a search looks at. Beyond it a seeded part of the samples stands for all; the
figures of the map that is found always come from every sample."""
MAX_ROW_ELEMENTS = 24_000_000
SEED = 9176


@dataclass(frozen=True, eq=False)
class LossFunction:
    """Cost of changes [C, K, A] of A answers with K outputs each, the outputs side by side.

    `rows` are the changes of single layers [P * L, K * A]. `anchor` is what the cost is measured
    from: the reference's probabilities for divergence, the label for a loss with labels.
    """

    rows: Floats
    p: Doubles | None  # [K, A]; None for values
    anchor: Doubles  # [K, A]; for values: twice the reference's error against the targets
    scale: Doubles  # [A]: weight of each answer in the total
    kept: NDArray[np.int64] | None  # samples that are looked at; None = all

    def cost(self, change: Doubles) -> Doubles:
        """Cost (C,) of changes (C, K * A)."""
        shaped = change.reshape(len(change), *self.anchor.shape)
        if self.p is None:
            inside = np.square(shaped) + self.anchor * shaped
            return np.asarray(inside.sum(axis=1) @ self.scale)
        expected = (shaped * self.anchor).sum(axis=1)
        # exp of a small number less 1 loses digits, but 1e-16 of a divergence of 1e-9 is little.
        grown = np.exp(shaped - expected[:, None])
        grown *= self.p
        return np.asarray(np.log(grown.sum(axis=1)) @ self.scale)

    def slope(self, change: Doubles) -> Doubles:
        """Derivative of the cost by each element of one change (K * A,)."""
        shaped = change.reshape(self.anchor.shape)
        if self.p is None:
            return np.asarray(((2 * shaped + self.anchor) * self.scale).ravel())
        grown = self.p * np.exp(shaped - shaped.max(axis=0))
        grown /= grown.sum(axis=0)
        return np.asarray(((grown - self.anchor) * self.scale).ravel())

    def bend(self, change: Doubles, answers: NDArray[np.int64]) -> Callable[[Floats], Floats]:
        """Second-order cost around `change` (K * A,) of small steps (C, K * A') of `answers`."""
        scale = self.scale[answers].astype(np.float32)
        shape = (len(self.anchor), len(answers))
        if self.p is None:
            return lambda step: np.square(step).reshape(len(step), *shape).sum(axis=1) @ scale
        shaped = change.reshape(self.anchor.shape)[:, answers]
        grown = self.p[:, answers] * np.exp(shaped - shaped.max(axis=0))
        q = (grown / grown.sum(axis=0)).astype(np.float32)

        def bent(step: Floats) -> Floats:
            parts = step.reshape(len(step), *shape)
            weighted = parts * q
            mean = weighted.sum(axis=1)
            weighted *= parts
            return np.asarray((weighted.sum(axis=1) - np.square(mean)) @ (scale / 2))

        return bent

    def whitened(self) -> Floats:
        """Rows W [P * L, K * A] with W Wᵀ = Q: products of them are the second-order cost."""
        rows = self.rows.reshape(len(self.rows), *self.anchor.shape)
        root = np.sqrt(self.scale).astype(np.float32)
        if self.p is None:
            return (rows * root).reshape(len(rows), -1)
        p = self.p.astype(np.float32)
        centred = rows - np.einsum("rka,ka->ra", rows, p)[:, None]
        centred *= np.sqrt(p / 2) * root
        return np.asarray(centred.reshape(len(rows), -1))

    def linear(self) -> Doubles:
        """First-order cost of each row (P * L,): 0 for divergence but for rounding."""
        slope = self.slope(np.zeros(self.anchor.size))
        return np.asarray(self.rows @ slope.astype(np.float32), dtype=np.float64)

    def of_samples(self, outputs: NDArray[np.floating], counted: NDArray[np.bool_]) -> Doubles:
        """`outputs` [R, N, K'] as rows of what is looked at, (R, K * A)."""
        kept = outputs if self.kept is None else outputs[:, self.kept]
        return _side_by_side(kept, counted).astype(np.float64)


def _side_by_side(
    outputs: NDArray[np.floating], counted: NDArray[np.bool_]
) -> NDArray[np.floating]:
    """[R, N, positions * K] -> [R, K * A], the answers that count of one output together."""
    classes = int(np.prod(outputs.shape[1:])) // max(counted.size, 1)
    answers = outputs.reshape(len(outputs), counted.size, classes)
    if not counted.all():
        answers = answers[:, counted.ravel()]
    turned = np.ascontiguousarray(answers.transpose(0, 2, 1))
    return turned.reshape(len(outputs), answers.shape[1] * answers.shape[2])


def loss_function(evidence: Evidence, target: Target) -> tuple[LossFunction, NDArray[np.bool_]]:
    """What maps of `evidence` are weighed by, and which answers of the kept samples count.

    Raises `PolicyError` where labels are asked for and there are none.
    """
    if target == "labels" and evidence.targets is None:
        raise PolicyError(
            "This analysis has no labels to weigh a loss by.", "Minimise divergence instead."
        )
    classes = evidence.outputs.kind == "logits"
    positions = evidence.outputs.positions if classes else 1
    kept = _kept(evidence)
    samples = np.arange(evidence.samples) if kept is None else kept
    counted = np.ones((len(samples), positions), np.bool_)
    if classes and evidence.targets is not None:
        counted = evidence.targets.reshape(evidence.samples, -1)[samples] >= 0
        counted = counted if counted.any() else np.ones_like(counted)
    baseline = evidence.baseline[samples].reshape(len(samples) * positions, -1)
    baseline = baseline[counted.ravel()].astype(np.float64)
    scale = np.full(len(baseline), 1 / max(len(baseline), 1))
    p: Doubles | None = None
    if classes:
        p = np.exp(log_softmax(baseline))
        anchor = p
        if target == "labels" and evidence.targets is not None:
            answers = evidence.targets.reshape(evidence.samples, -1)[samples][counted]
            anchor = np.zeros_like(p)
            anchor[np.arange(len(p)), np.maximum(answers, 0)] = 1.0
    else:
        spread = evidence.spread / max(evidence.samples, 1)
        scale = scale / spread if spread > 0 else scale
        anchor = np.zeros_like(baseline)
        if target == "labels" and evidence.targets is not None:
            misses = baseline - evidence.targets[samples].reshape(baseline.shape)
            anchor = 2 * np.nan_to_num(misses, nan=0.0)  # unknown: what the reference gives
    precisions, layers = evidence.perturbations.shape[:2]
    rows = evidence.perturbations if kept is None else evidence.perturbations[:, :, kept]
    flat = _side_by_side(rows.reshape(precisions * layers, len(samples), -1), counted)
    transposed = None if p is None else np.ascontiguousarray(p.T)
    return LossFunction(
        flat.astype(np.float32, copy=False), transposed, np.ascontiguousarray(anchor.T), scale, kept
    ), counted


def _kept(evidence: Evidence) -> NDArray[np.int64] | None:
    """Samples that a search looks at; None where it can afford all of them."""
    precisions, layers, samples, outputs = evidence.perturbations.shape
    most = min(MAX_ELEMENTS, MAX_ROW_ELEMENTS // max(precisions * layers, 1))
    affordable = max(most // max(outputs, 1), 32)
    if samples <= affordable:
        return None
    rng = np.random.default_rng(SEED)
    return np.sort(rng.choice(samples, affordable, replace=False))
