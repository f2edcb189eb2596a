"""Models whose containers compute on their own: joins, gates and boxes beside scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.source.contract import ModelSource, model_source


class Head(nn.Module):
    """Boxes in pixels and scores in one output: a scale for both leaves nothing of the scores."""

    def __init__(self, channels: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.box = nn.Conv2d(channels, 4, 1)
        self.cls = nn.Conv2d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, 4 + K, H W]."""
        h, w = x.shape[-2:]
        gy, gx = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
        anchors = torch.stack((gx, gy)).flatten(1).unsqueeze(0)
        box = F.softplus(self.box(x).flatten(2))
        low, high = box.chunk(2, 1)
        low, high = anchors - low, anchors + high
        boxes = torch.cat(((low + high) / 2, high - low), 1) * 370.0
        return torch.cat((boxes, self.cls(x).flatten(2).sigmoid()), 1)


class Detector(nn.Module):
    """Two convolutions with SiLU, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.SiLU(inplace=True),
            nn.Conv2d(8, 8, 3, 2, 1),
            nn.SiLU(),
        )
        self.head = Head()

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, 8, 8] -> [N, 7, 16]."""
        return self.head(self.stem(x))


class Gated(nn.Module):
    """A residual block with a gate, a stored offset and a softmax over a stack of branches."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(6, 8)
        self.gate = nn.Linear(8, 8)
        self.offset = nn.Parameter(torch.linspace(-1, 1, 8))
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 6] -> [N, 3]."""
        a, b = F.relu(self.a(x)), self.b(x) + self.offset
        mixed = torch.stack((a, b), 1)
        mixed = (mixed * mixed.softmax(1)).sum(1)
        mixed += a
        return self.last(mixed * torch.sigmoid(self.gate(mixed)))


def right_class(outputs: Tensor, targets: Tensor) -> float:
    """Share of places whose largest score is that of `targets`, in %."""
    return float((outputs[:, 4:].argmax(1) == targets[:, 0].long()).float().mean() * 100)


def detector_source(**more: Any) -> ModelSource:
    """A detector with random weights whose own answers are the targets."""
    torch.manual_seed(0)
    model = Detector().eval()
    with torch.no_grad():
        model.head.cls.weight.mul_(8)
        model.head.box.weight.mul_(4)
    x = torch.randn(96, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        answer = model(x)[:, 4:].argmax(1, keepdim=True).float()
    return model_source({
        "name": "detector", "model": model, "calibration": x[:32], "evaluation": (x[32:], answer[32:]),
        "holdout": None, "task": "custom", "metric": right_class, "metric_name": "right class, %",
        "higher_is_better": True, **more,
    })  # fmt: skip
