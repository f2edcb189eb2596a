"""Activations that a kernel quantizes while it runs, over the range that they have there.

ONNX Runtime's DynamicQuantizeLSTM takes floats and quantizes the whole input sequence once and
the hidden state in every step, DynamicQuantizeLinear what a product of a matrix takes in, each on an
unsigned affine grid over its own minimum and maximum widened to hold 0. A kernel takes them over the
batch at hand; here every sample has its own grid, as at batch 1, for which latency is estimated and
maps are verified too, so that figures do not depend on how samples are divided into batches.

Where the samples of a batch lie in what a product takes in, the model alone decides: it may move the
batch to another axis, or lay it into one with steps. So some samples are run together and one by one,
and the activations held against each other. A model that mixes the samples of a batch has no sample by
itself: there a range is that of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

COPIES = 2
"""As how many copies a sample is run by itself: one alone is special, to a squeeze for instance."""
SAME = 1e-3
"""Relative difference up to which a sample is taken for the same one run in a batch."""


@dataclass(frozen=True, slots=True)
class SampleAxis:
    """Samples lie along `axis`, and `leads` tells whether all values of one follow each other there
    (else samples take turns).
    """

    axis: int
    leads: bool

    def parted(self, x: Tensor, samples: int) -> tuple[Tensor, int]:
        """A view of `x` with an axis of `samples`, and which that is."""
        each = x.shape[self.axis] // samples
        sizes = (samples, each) if self.leads else (each, samples)
        shape = (*x.shape[: self.axis], *sizes, *x.shape[self.axis + 1 :])
        return x.reshape(shape), self.axis + (not self.leads)


def sample_axis(together: Tensor, alone: Sequence[Tensor]) -> SampleAxis | None:
    """Where samples lie in `together`, made of a batch, each of which gives one of `alone` in a batch of
    `COPIES` of itself; None where they are not found.
    """
    samples = len(alone)
    for axis in range(together.ndim):
        size = together.shape[axis]
        if not size or size % samples:
            continue
        if any(x.ndim != together.ndim or x.shape[axis] != size // samples * COPIES for x in alone):
            continue
        for found in (SampleAxis(axis, leads=True), SampleAxis(axis, leads=False)):
            parts, at = found.parted(together, samples)
            own = [found.parted(one, COPIES)[0].select(at, 0) for one in alone]
            if all(_is_same(parts.select(at, i), one) for i, one in enumerate(own)):
                return found
    return None


def _is_same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and is_same(a, b)


def is_same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one shape are the same but for the order of summation."""
    return float((a - b).norm()) <= SAME * float(b.norm())


def round_samples(x: Tensor, bits: int, samples: int, where: SampleAxis | None) -> Tensor:
    """`x` with each of `samples` on its own affine grid; on one where it is not known `where` they
    lie, or there are not as many.
    """
    if where is None or x.shape[where.axis] % samples:
        return round_dynamic(x.unsqueeze(0), bits, 0).squeeze(0)
    parts, at = where.parted(x, samples)
    return round_dynamic(parts, bits, at).reshape(x.shape)


def round_dynamic(x: Tensor, bits: int, axis: int = -2) -> Tensor:
    """`x` with each index of `axis`, which counts samples, on its own affine grid: of [steps, N,
    features] and [N, features] the last but one.

    Scale = (max - min) / (2^bits - 1), zero point = round(-min / scale), as
    `core.numerics.rounding.affine_grid` has them; a sample of zeros has scale 1.
    """
    if not x.numel():
        return x
    axis %= x.ndim
    others = [other for other in range(x.ndim) if other != axis]
    low, high = x.amin(others).clamp(max=0), x.amax(others).clamp(min=0)
    steps = 2**bits - 1
    scale = (high - low) / steps
    scale = torch.where(scale > torch.finfo(torch.float32).tiny, scale, torch.ones_like(scale))
    zero_point = torch.round(-low / scale).nan_to_num().clamp(0, steps).to(torch.int32)
    return torch.fake_quantize_per_channel_affine(x, scale, zero_point, axis, 0, steps)
