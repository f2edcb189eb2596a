"""Models that do what real ones do: change their inputs, draw random numbers, return dicts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Shared(nn.Module):
    """One linear layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.second = self.first
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        return self.head(self.second(torch.tanh(self.first(x))))


class TiedEmbedding(nn.Module):
    """A language model's table, read as rows and as the matrix of the last product."""

    def __init__(self, words: int = 30) -> None:
        super().__init__()
        self.table = nn.Embedding(words, 8)
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, words, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        """[N, T] -> [N, T, words]."""
        return self.head(torch.tanh(self.mix(self.table(ids))))


class FrozenBuffers(nn.Module):
    """Weights that are buffers, as frozen feature extractors have them; a counter beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(6, 5))
        self.register_buffer("calls", torch.zeros(1))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        self.calls += 1
        return self.head(torch.relu(F.linear(x, self.weight)))


class InPlace(nn.Module):
    """Everything is changed where it lies, the model's own input first."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.act = nn.ReLU(inplace=True)
        self.second = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 6] -> [N, 3]."""
        x.sub_(0.5)
        h = self.first(x)
        self.act(h)
        left = h[:, :3]
        left.mul_(2.0)
        g = self.second(h)
        g += h
        g[:, 0] = 0.25
        return self.head(g.tanh_())


class OutOfPlace(InPlace):
    """What `InPlace` computes, without changing anything."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, 6] -> [N, 3]."""
        h = F.relu(self.first(x - 0.5))
        h = torch.cat([h[:, :3] * 2.0, h[:, 3:]], dim=1)
        g = self.second(h) + h
        g = torch.cat([torch.full_like(g[:, :1], 0.25), g[:, 1:]], dim=1)
        return self.head(torch.tanh(g))


class DropoutAlwaysOn(nn.Module):
    """`F.dropout` without `training=self.training` drops in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(5, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        return self.head(F.dropout(torch.relu(self.body(x)), 0.5))


class NoisyOutput(nn.Module):
    """Random numbers of three libraries are added to the logits."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        import random

        import numpy as np

        noise = torch.randn(len(x), 3)
        drawn = random.gauss(0, 1) + float(np.random.normal())  # noqa: NPY002
        return self.body(x) + noise + drawn


class Views(nn.Module):
    """Transposed, sliced and expanded views go into layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(6, 4, 3)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, 6] -> [N, 3]."""
        x = self.conv(x.transpose(1, 2))[:, :, ::2].transpose(1, 2)
        return self.head(self.norm(x).mean(dim=1).expand(2, -1, -1)[0])


class BranchOnBatch(nn.Module):
    """Large batches go through another layer."""

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.Linear(5, 3)
        self.large = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        return self.large(x) if x.shape[0] > 70 else self.small(x)


class MoreStepsForMore(nn.Module):
    """One layer multiplies once more in a large batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 5) / 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 5]."""
        for _ in range(2 if x.shape[0] > 70 else 1):
            x = torch.tanh(x @ self.weight)
        return x


@dataclass
class Answer:
    """What `Structured` returns."""

    steps: int
    ids: Tensor
    logits: Tensor
    extra: dict[str, Tensor]


class Structured(nn.Module):
    """Returns a dataclass with integers before the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 3)
        self.other = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Answer:
        """[N, 5] -> logits [N, 3] and extra["other"] [N, 4]."""
        return Answer(3, torch.arange(len(x)), self.head(x), {"other": self.other(x)})


class Squeezing(nn.Module):
    """A batch of one loses its axis."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3], or [3] where N is 1."""
        return self.head(x).squeeze(0)


class BatchCentred(nn.Module):
    """Each output depends on who else is in the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        return self.head(x - x.mean(dim=0, keepdim=True))


class Counting(nn.Module):
    """Keeps state in an attribute that nobody can restore."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 3)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        self.calls += 1
        return self.head(x) * self.calls


class MaskedEncoder(nn.Module):
    """PyTorch's own encoder stack with a padding mask."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        """[N, T, 8] and bool [N, T] (True = padding) -> [N, 3]."""
        return self.head(self.encoder(x, src_key_padding_mask=padding)[:, 0])


class Recommender(nn.Module):
    """Two tables and a product: almost all parameters are embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.users = nn.Embedding(2_000, 16)
        self.items = nn.Embedding(1_000, 16)
        self.bag = nn.EmbeddingBag(50, 16, mode="mean")
        self.head = nn.Linear(16, 1)

    def forward(self, user: Tensor, item: Tensor, words: Tensor) -> Tensor:
        """[N], [N] and [N, W] integer ids -> rating [N]."""
        mixed = self.users(user) * (self.items(item) + self.bag(words))
        return self.head(mixed).squeeze(-1)


class LstmOnly(nn.Module):
    """Two layers in both directions; the outputs are the sums of the last states."""

    def __init__(self, bidirectional: bool = True) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, 2, batch_first=True, bidirectional=bidirectional)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, 4] -> [N, 6]."""
        return self.lstm(x)[1][0].sum(dim=0)


class LastOutput(nn.Module):
    """What a recurrent layer gives in its last step."""

    def __init__(self, recurrent: nn.Module) -> None:
        super().__init__()
        self.recurrent = recurrent

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, features] -> [N, H]."""
        return self.recurrent(x)[0][:, -1]


class EncoderDecoder(nn.Module):
    """A translation model with four inputs."""

    def __init__(self, words: int = 12) -> None:
        super().__init__()
        self.source = nn.Embedding(20, 8)
        self.target = nn.Embedding(words, 8)
        self.body = nn.Transformer(
            8, 2, 1, 1, 16, batch_first=True,
            custom_encoder=nn.TransformerEncoder(
                nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1,
                enable_nested_tensor=False,
            ),
        )  # fmt: skip
        self.head = nn.Linear(8, words)

    def forward(self, src: Tensor, tgt: Tensor, src_padding: Tensor, tgt_mask: Tensor) -> Tensor:
        """[N, S] and [N, T] ids, bool [N, S], additive [N, T, T] -> logits [N, T, words]."""
        hidden = self.body(
            self.source(src), self.target(tgt), tgt_mask=tgt_mask[0],
            src_key_padding_mask=src_padding, memory_key_padding_mask=src_padding,
        )  # fmt: skip
        return self.head(hidden)


class ImageToImage(nn.Module):
    """A denoiser: down, up, and the input added back."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.up = nn.ConvTranspose2d(8, 1, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, H, W] -> the same."""
        return x + self.up(F.silu(self.norm(self.down(x))))


class Video(nn.Module):
    """Three-dimensional convolutions, forward and transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 4, 3)
        self.up = nn.ConvTranspose3d(4, 2, 2)
        self.head = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, D, H, W] -> [N, 3]."""
        return self.head(self.up(self.conv(x)).mean(dim=(2, 3, 4)))


class RmsNorm(nn.Module):
    """A person's own norm, as language models write it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> the same."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


class EinsumAttention(nn.Module):
    """Attention in einsum, with projections that are bare parameters."""

    def __init__(self, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.norm = RmsNorm(width)
        self.qkv = nn.Parameter(torch.randn(3, heads, width, width // heads) / 3)
        self.out = nn.Parameter(torch.randn(heads, width // heads, width) / 3)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, width] -> [N, 3]."""
        h = self.norm(x)
        q, k, v = (torch.einsum("ntd,hde->nhte", h, w) for w in self.qkv)
        weights = torch.softmax(torch.einsum("nhte,nhse->nhts", [q, k]) / 2, dim=-1)
        mixed = torch.einsum("nhts,nhse->nhte", weights, v)
        return self.head((x + torch.einsum("nhte,hed->ntd", mixed, self.out)).mean(dim=1))


class Forecaster(nn.Module):
    """A window of the past to several steps ahead, through a GRU."""

    def __init__(self, ahead: int = 4) -> None:
        super().__init__()
        self.gru = nn.GRU(2, 8, batch_first=True)
        self.head = nn.Linear(8, ahead)

    def forward(self, window: Tensor) -> Tensor:
        """[N, T, 2] -> [N, ahead]."""
        return self.head(self.gru(window)[0][:, -1])
