"""Awkward and ordinary small models that must be taken as they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Pre-norm transformer block with hand-written attention as one module."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = HandAttention(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, width] -> the same."""
        x = x + self.dropout(self.attention(self.norm(x)))
        return x + self.dropout(self.feed_forward(x))


class HandAttention(nn.Module):
    """Single-head softmax attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, width] -> the same."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        weights = torch.softmax(q @ k.transpose(1, 2) * q.shape[-1] ** -0.5, dim=-1)
        return self.out(torch.matmul(weights, v))


class TinyTransformer(nn.Module):
    """Two blocks and a head; a bare parameter (class token) belongs to no layer."""

    def __init__(self, features: int = 6, width: int = 16, classes: int = 3) -> None:
        super().__init__()
        self.embed = nn.Linear(features, width)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, features] -> [N, classes]."""
        x = torch.cat([self.token.expand(len(x), -1, -1), self.embed(x)], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


class ConvNet(nn.Module):
    """Convolution, batch norm, pooling and a head."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.act = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(6, 8, 3, groups=2)
        self.up = nn.ConvTranspose2d(8, 4, 2)
        self.head = nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, 8, 8] -> [N, classes]."""
        x = self.pool(self.act(self.bn(self.conv1(x))))
        return self.head(F.elu(self.up(self.conv2(x))).mean(dim=(2, 3)))


class TiedWeights(nn.Module):
    """Two layers share one weight tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.second = nn.Linear(5, 5)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 5]."""
        return self.second(torch.tanh(self.first(x)))


class LoopedModule(nn.Module):
    """One module called three times with different inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(5, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        for _ in range(3):
            x = torch.relu(self.step(x)) + 1
        return self.head(x)


class TokenModel(nn.Module):
    """An embedding of integer ids."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(20, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        """[N, T] int64 -> [N, 3]."""
        return self.head(self.tokens(ids).mean(dim=1))


class NeverCalled(nn.Module):
    """A layer that forward does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(5, 3)
        self.unused = nn.Linear(5, 7)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        return self.used(x)


class NoLayers(nn.Module):
    """Nothing that could be quantized."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3] -> [N, 3]."""
        return self.same(x) * 2


class Overflowing(nn.Module):
    """Activations beyond 65,504: finite in FP32, infinite in FP16."""

    def __init__(self) -> None:
        super().__init__()
        self.large = nn.Linear(5, 5)
        self.small = nn.Linear(5, 3)
        with torch.no_grad():
            self.large.weight.mul_(1e6)
            self.small.weight.mul_(1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        return self.small(self.large(x))


class DictOutput(nn.Module):
    """Returns a dict whose first tensor is the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """[N, 5] -> {"logits": [N, 3]}."""
        return {"logits": self.head(x)}


class Encoder(nn.Module):
    """PyTorch's own encoder layer: `in_proj_weight` is a bare parameter, `out_proj` no call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, 8] -> [N, 3]."""
        return self.head(self.layer(x).mean(dim=1))
