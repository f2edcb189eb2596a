"""A small model that chooses among many classes at every step, and its data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.source.contract import ModelSource, model_source


class Recognizer(nn.Module):
    """Logits of `classes` at every step of [N, T, 6]; `sharp` is about their deviation."""

    def __init__(self, classes: int, sharp: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.last = nn.Linear(6, 24), nn.Linear(24, 24), nn.Linear(24, 24)
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, classes)
        with torch.no_grad():
            self.head.weight.mul_(3**0.5 * sharp)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, 6] -> [N, T, classes]."""
        h = torch.relu(self.first(x))
        h = self.norm(h + torch.relu(self.middle(h)))
        logits: Tensor = self.head(self.norm(self.last(h)))
        return logits


def recognizer(classes: int, steps: int, samples: int, sharp: float) -> ModelSource:
    """A recognizer whose targets are what it gives, but for one in five; one step in ten is not
    counted.
    """
    draw = torch.Generator().manual_seed(1)
    model, x = Recognizer(classes, sharp), torch.randn(samples, steps, 6, generator=draw)
    with torch.no_grad():
        targets = model(x).argmax(-1)
    other = torch.randint(0, classes, targets.shape, generator=draw)
    targets = torch.where(torch.rand(targets.shape, generator=draw) < 0.2, other, targets)
    targets[torch.rand(targets.shape, generator=draw) < 0.1] = -100
    return model_source(
        {"model": model, "calibration": x[:16], "evaluation": (x, targets), "task": "sequence"}
    )
