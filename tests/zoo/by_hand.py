"""Rounding written out in NumPy, from the method's formulas and not from the code under test."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def symmetric(weight: Tensor, axis: int | None = 0) -> Tensor:
    """A weight on 255 levels around zero: one scale per index of `axis`, or one for all."""
    w = weight.detach().numpy().astype(np.float64)
    over = tuple(i for i in range(w.ndim) if axis is not None and i != axis % w.ndim)
    largest = np.abs(w).max(axis=over, keepdims=True) if axis is not None else np.abs(w).max()
    scale = np.where(largest > 0, (largest.astype(np.float32) / np.float32(127)), 1.0)
    rounded = np.clip(np.rint(w / scale), -127, 127) * scale
    return torch.from_numpy(rounded.astype(np.float32))


def affine(x: NDArray[np.floating], seen: NDArray[np.floating]) -> Tensor:
    """Values on 256 levels over the range of `seen` widened to hold 0."""
    low, high = min(float(seen.min()), 0.0), max(float(seen.max()), 0.0)
    scale = (high - low) / 255
    zero = round(-low / scale)
    levels = np.clip(np.rint(np.asarray(x, np.float64) / scale) + zero, 0, 255)
    return torch.from_numpy(((levels - zero) * scale).astype(np.float32))


def half(x: Tensor) -> Tensor:
    """Values that half precision can hold."""
    return torch.from_numpy(x.detach().numpy().astype(np.float16).astype(np.float32))


def own_grid(x: Tensor) -> Tensor:
    """One sample's values on 256 levels over their own range widened to hold 0."""
    return affine(x.numpy(), x.numpy()) if bool((x != 0).any()) else x


def dynamic_lstm(lstm: torch.nn.LSTM, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Outputs [T, directions * H] and last states of an LSTM for one sample [T, features] as a
    kernel computes them that holds weights in 8 bits per gate row and quantizes its input once and
    the hidden state in every step.
    """
    last = []
    weights = {name: p.detach() for name, p in lstm.named_parameters()}
    for number in range(lstm.num_layers):
        ways = []
        for suffix in ("", "_reverse")[: 2 if lstm.bidirectional else 1]:
            w, r, b, c = (weights[f"{kind}_l{number}{suffix}"]
                          for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))  # fmt: skip
            given = own_grid(x) @ symmetric(w).T + b
            hidden = cell = torch.zeros(lstm.hidden_size)
            found = []
            for row in given.flip(0) if suffix else given:
                gates = row + own_grid(hidden) @ symmetric(r).T + c
                i, f, g, o = gates.chunk(4)
                cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
                hidden = o.sigmoid() * cell.tanh()
                found.append(hidden)
            last.append(hidden)
            ways.append(torch.stack(found[::-1] if suffix else found))
        x = torch.cat(ways, 1)
    return x, last
