"""Fewer numbers for a distribution over many classes: its likeliest entries, and the rest as one.

Of every answer the same number of classes is kept, the *entries*: the reference model's most
probable ones, and the target's among them. All others are one class more, the *rest*, whose
probability is the sum of theirs. So the softmax of what is kept is a coarser distribution of the
same model, and divergences of such distributions are lower bounds of those of all classes (log sum
inequality, Cover and Thomas 2006, Elements of Information Theory, theorem 2.7.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.evidence.evidence import Evidence, Outputs
from core.evidence.scorers.logits import by_step, log_softmax

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Entries = NDArray[np.int32]
"""Classes that are kept of each answer [N, steps, E], rising."""

FEWEST = 32
MASS = 0.99
SHARE = 0.95


@dataclass(frozen=True, slots=True)
class KeptShare:
    """What entries hold of the reference's distributions, each in [0, 1], means over answers:
    their `mass`, and the `share` of a divergence that noise alike in all logits would keep at
    least.
    """

    mass: float
    share: float

    @property
    def is_enough(self) -> bool:
        """Whether nearly all is kept."""
        return self.mass >= MASS and self.share >= SHARE


def _part(mass: float, squares: float) -> KeptShare:
    """From the means of the entries' summed probabilities, and of their summed squares.

    Noise of variance v in all logits makes a divergence of ½ v (1 - Σp²) to second order. What lies
    within the rest is lost, at most ½ v (1 - mass).
    """
    return KeptShare(mass, 1 - min((1 - mass) / max(1 - squares, 1e-12), 1.0))


def fewest(chunks: Iterable[Floats], classes: int, most: int) -> tuple[int, KeptShare]:
    """The least number of entries, 32 doubled up to `most`, that holds enough of the distributions
    over `classes`, rows of `chunks`; the largest where none does.
    """
    sizes = [FEWEST << i for i in range(most.bit_length()) if FEWEST << i < min(most, classes)]
    sizes.append(min(most, classes))
    at = np.array(sizes) - 1
    sums, answers = np.zeros((2, len(sizes))), 0
    for rows in chunks:
        falling = -np.sort(-rows.astype(np.float64), axis=-1)
        sums += [np.cumsum(p, axis=-1)[:, at].sum(axis=0) for p in (falling, np.square(falling))]
        answers += len(rows)
    parts = [_part(*pair) for pair in (sums / max(answers, 1)).T.tolist()]
    return next((found for found in zip(sizes, parts, strict=True) if found[1].is_enough),
                (sizes[-1], parts[-1]))  # fmt: skip


def likeliest(values: Floats, entries: int, targets: NDArray[np.int64] | None) -> Entries:
    """Entries [n, steps, E] of `values` [n, steps, classes], logits or probabilities: the largest,
    the last of them giving way to the target where that is none of them.
    """
    found = []
    for i, rows in enumerate(values):
        top = np.argpartition(rows, rows.shape[-1] - entries, axis=-1)[:, -entries:]
        if targets is not None:
            wanted = targets[i].reshape(-1, 1)
            absent = np.flatnonzero((wanted[:, 0] >= 0) & ~(top == wanted).any(axis=-1))
            least = np.take_along_axis(rows, top, axis=-1)[absent].argmin(axis=-1)
            top[absent, least] = wanted[absent, 0]
        found.append(np.sort(top, axis=-1).astype(np.int32))
    return np.stack(found)


def reduced(values: Floats, entries: Entries, *, probabilities: bool, floor: float) -> Floats:
    """Logits [n, steps * (E + 1)] of the `entries` of `values` [n, steps, classes], and of the rest
    last. Probabilities below `floor` are taken for it, after the rest was summed.
    """
    found = np.empty((*entries.shape[:2], entries.shape[2] + 1), np.float32)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for rows, own, given in zip(values, entries, found, strict=True):  # one sample's are many
            rest = rows.copy()
            given[:, :-1] = np.take_along_axis(rows, own, axis=-1)
            np.put_along_axis(rest, own, 0.0 if probabilities else -np.inf, axis=-1)
            if probabilities:
                given[:, -1] = rest.sum(axis=-1)
                np.log(np.maximum(given, floor), out=given)
                continue
            largest = rest.max(axis=-1, keepdims=True)
            np.exp(np.subtract(rest, largest, out=rest), out=rest)
            given[:, -1] = np.log(rest.sum(axis=-1)) + largest[:, 0]
    return found.reshape(len(found), -1)


def places(entries: Entries, targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where among the `entries` the `targets` [N, steps] stand; below 0 for those not counted."""
    return np.where(targets < 0, targets, (entries == targets[..., None]).argmax(axis=-1))


def part_of(evidence: Evidence) -> KeptShare | None:
    """What the entries of `evidence` hold; None where all classes were kept."""
    if not evidence.outputs.classes:
        return None
    p = np.exp(log_softmax(by_step(evidence.baseline, evidence.outputs.positions)))[..., :-1]
    return _part(float(p.sum(axis=-1).mean()), float(np.square(p).sum(axis=-1).mean()))


def in_words(outputs: Outputs, columns: int, part: KeptShare | None) -> str:
    """What is kept of the outputs of a sample, as "128 of 18,710 classes at 12 of 40 steps, 99.4 %
    of the mass"; `columns` are the numbers that are kept.
    """
    if not outputs.total:
        return f"all {columns:,}"
    if not outputs.classes or part is None:
        return f"{columns:,} of {outputs.total:,}"
    steps, kept = outputs.total // outputs.classes, outputs.positions
    where = "" if steps == 1 else f" at {kept:,} of {steps:,} steps"
    where = f" at all {steps:,} steps" if steps == kept > 1 else where
    entries = columns // kept - 1
    mass = np.floor(1000 * part.mass) / 10  # never said to be more than it is
    return f"{entries:,} of {outputs.classes:,} classes{where}, {mass:.1f} % of the mass"
