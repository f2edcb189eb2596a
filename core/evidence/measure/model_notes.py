"""What a model does in forward that a person has to know when they read its figures."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from core.evidence.evidence import Evidence
from core.evidence.measure.memory import BATCH as MOST
from core.evidence.reduction import in_words, part_of
from core.layers import LayerTable
from core.source.batches import Inputs, count, run_batch, state_kept, take
from core.source.contract import ModelSource

FEW = 8
MOST_VALUES = 2**24
"""Outputs of a batch that is compared with a small one."""
TOLERANCE = 1e-3
"""Of the outputs' size: larger than rounding, smaller than any real dependence."""

KEEPS_STATE = (
    "The model gives other outputs when it is run again on the same samples: it keeps state "
    "between calls, and figures hold for the order in which it was run."
)
RANDOM = (
    "The model draws random numbers in forward. Every run met the same ones, so that figures "
    "compare precisions and not draws."
)
BATCH = (
    "The model's outputs depend on the size of the batch. Every run used the same batches, "
    "of 100 samples or fewer; figures for other sizes may differ."
)


SUBSAMPLED = (
    "Of {total:,} outputs per sample {kept:,} were kept, drawn once with a fixed seed; every "
    "figure of the outputs speaks of those."
)


REDUCED = (
    "Kept of the outputs of a sample: {kept}. These classes are the likeliest of the reference model "
    "and the target's; the others of each answer count as one. So divergences are lower bounds of "
    "those over all classes: at least about {share:.0%} of them where logits are disturbed alike."
)
TOO_FEW = (
    "These classes hold less of the distributions than they should (99 % of the mass, 95 % of the "
    "divergence): divergences may be much larger than is said."
)


def notes(source: ModelSource, evidence: Evidence) -> tuple[str, ...]:
    """What to know about how `source` was measured, as sentences."""
    return (*_kept_notes(evidence), *forward_notes(source, source.selection.inputs))


def _kept_notes(evidence: Evidence) -> tuple[str, ...]:
    outputs, columns, part = evidence.outputs, evidence.baseline.shape[1], part_of(evidence)
    if part is not None:
        share = np.floor(100 * part.share) / 100
        said = REDUCED.format(kept=in_words(outputs, columns, part), share=share)
        return (said,) if part.is_enough else (said, TOO_FEW)
    return (SUBSAMPLED.format(total=outputs.total, kept=columns),) if outputs.total else ()


def flow_notes(layers: LayerTable) -> tuple[str, ...]:
    """What to know where samples take different ways through the model, as sentences."""
    unreached = (layers.unreached_in_words(),) if layers.unreached else ()
    return (*unreached, *((layers.sometimes_in_words(),) if layers.sometimes else ()))


def is_plain(source: ModelSource) -> bool:
    """Whether the outputs of a selection sample are its own: they depend neither on the batch nor on
    what ran before, by a few of them.
    """
    try:
        return not forward_notes(source, source.selection.inputs)
    except Exception:  # noqa: BLE001 (whatever the model raises; measuring says on which sample)
        return True


def forward_notes(source: ModelSource, given: Inputs) -> tuple[str, ...]:
    """What is unusual about the forward pass, from a few samples of `given`: one of the sentences
    above, the gravest that holds, or none. Does not change the model.
    """
    few = take(given, 0, FEW)

    def run(inputs: object, seed: int = 0) -> Tensor:
        with state_kept(source.model):
            return run_batch(source.model, inputs, source.output, seed=seed)  # type: ignore[arg-type]

    first, again = run(few), run(few)
    if not torch.equal(first, again):
        return (KEEPS_STATE,)
    if not torch.equal(first, run(few, seed=1)):
        return (RANDOM,)
    n = count(few)
    size = float(first.abs().max())
    most = max(n + 1, min(MOST, MOST_VALUES // max(first.shape[1], 1)))
    for other in (
        run(take(given, 0, most))[:n],
        torch.cat([run(take(few, 0, n // 2)), run(take(few, n // 2, n))]) if n > 1 else first,
        torch.cat([run(take(few, i, i + 1)) for i in range(n)]),
    ):
        if other.shape != first.shape or float((other - first).abs().max()) > TOLERANCE * size:
            return (BATCH,)
    return ()
