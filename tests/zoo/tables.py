"""Models that store more than weights of layers: tables in every way that people keep them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Tables(nn.Module):
    """A table that is saved, one that is not, one that is a plain attribute, indices, a step that
    nothing reads, a module that is never called, and a weight with two names.
    """

    step: Tensor
    saved: Tensor
    unsaved: Tensor
    order: Tensor

    def __init__(self, length: int = 1200) -> None:
        super().__init__()
        self.register_buffer("saved", torch.randn(1, length, 8))
        self.register_buffer("unsaved", torch.randn(1, length, 8), persistent=False)
        self.register_buffer("order", torch.randperm(1200))
        self.register_buffer("step", torch.zeros(3))
        self.plain = torch.randn(1, length, 8)
        self.scale = nn.Parameter(torch.randn(8))
        self.a = nn.Linear(8, 8)
        self.again = nn.Linear(8, 8)
        self.again.weight = self.a.weight
        self.unused = nn.Linear(50, 50)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 4, 8] -> [N, 3]."""
        steps = x.shape[1]
        x = self.a(x) + self.saved[:, :steps] + self.unsaved[:, :steps] * self.scale
        x = self.again(torch.relu(x)) + self.plain[:, :steps]
        table = torch.cat((x, x), 2).repeat(1, 300, 1)[:, self.order]
        return self.last(x.mean(1) + table.mean((1, 2), keepdim=True).squeeze(1))
