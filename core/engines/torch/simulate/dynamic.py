"""Activations that a kernel quantizes while it runs, over the range that they have there.

ONNX Runtime's DynamicQuantizeLSTM takes floats and quantizes the whole input sequence once and
the hidden state in every step, each on an unsigned affine grid over its own minimum and maximum
widened to hold 0. Its kernel takes them over the batch at hand; here every sample has its own
grid, as at batch 1, for which latency is estimated too, so that figures do not depend on how
samples are divided into batches.
"""

from __future__ import annotations

import torch
from torch import Tensor


def round_dynamic(x: Tensor, bits: int) -> Tensor:
    """`x` [steps, N, features] or [N, features], each of N samples on its own affine grid.

    Scale = (max - min) / (2^bits - 1), zero point = round(-min / scale), as
    `core.numerics.rounding.affine_grid` has them; a sample of zeros has scale 1.
    """
    if not x.numel():
        return x
    others = [axis for axis in range(x.ndim) if axis != x.ndim - 2]
    low, high = x.amin(others).clamp(max=0), x.amax(others).clamp(min=0)
    steps = 2**bits - 1
    scale = (high - low) / steps
    scale = torch.where(scale > torch.finfo(torch.float32).tiny, scale, torch.ones_like(scale))
    zero_point = torch.round(-low / scale).nan_to_num().clamp(0, steps).to(torch.int32)
    return torch.fake_quantize_per_channel_affine(x, scale, zero_point, x.ndim - 2, 0, steps)
