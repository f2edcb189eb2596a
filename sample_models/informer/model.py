"""The Informer classifier: 57 layers when attention and feed-forward blocks count as units.

Zhou et al. 2021, "Informer: Beyond Efficient Transformer for Long Sequence Time-Series
Forecasting" (AAAI). Departures from the paper are listed in the README beside this file.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sample_models.informer.attention import ProbSparseAttention


@dataclass(frozen=True, slots=True)
class InformerConfig:
    """Sizes of the model. The defaults give 4.85 million parameters, 19.39 MB in FP32."""

    features: int = 12
    seq_len: int = 64
    classes: int = 3
    d_model: int = 192
    heads: int = 8
    d_ff: int = 1040
    blocks: int = 8
    distil_after: tuple[int, ...] = (2, 5)
    factor: int = 3
    dropout: float = 0.1
    sample_seed: int = 2021

    def block_lengths(self) -> tuple[int, ...]:
        """Length of the series inside each block: every distilling stage halves it."""
        lengths, length = [], self.seq_len
        for number in range(1, self.blocks + 1):
            lengths.append(length)
            if number in self.distil_after:
                length = (length + 1) // 2
        return tuple(lengths)


class PositionalEncoding(nn.Module):
    """Adds the sinusoidal position table of Vaswani et al. 2017: [N, L, d] -> [N, L, d]."""

    table: Tensor

    def __init__(self, d_model: int, length: int) -> None:
        super().__init__()
        position = torch.arange(length, dtype=torch.float32).unsqueeze(1)
        rate = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10_000.0) / d_model))
        pairs = torch.stack((torch.sin(position * rate), torch.cos(position * rate)), dim=-1)
        self.register_buffer("table", pairs.flatten(1).unsqueeze(0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add the table to every series of the batch."""
        return x + self.table


class FeedForward(nn.Module):
    """Two linear layers around a GELU, the same at every time step: [N, L, d] -> [N, L, d]."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff)
        self.activation = nn.GELU()
        self.linear2 = nn.Linear(d_ff, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Widen to d_ff, activate, narrow back."""
        output: Tensor = self.linear2(self.activation(self.linear1(x)))
        return output


class EncoderBlock(nn.Module):
    """Post-norm encoder block; one dropout module serves both residual branches."""

    def __init__(self, config: InformerConfig, length: int, seed: int) -> None:
        super().__init__()
        width = config.d_model
        self.attention = ProbSparseAttention(width, config.heads, length, config.factor, seed)
        self.norm1 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, config.d_ff)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[N, L, d_model] -> [N, L, d_model]."""
        x = self.norm1(x + self.dropout(self.attention(x)))
        output: Tensor = self.norm2(x + self.dropout(self.feed_forward(x)))
        return output


class DistillingStage(nn.Module):
    """Two convolutions and a max pooling that halve the series: [N, L, d] -> [N, L/2, d]."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(d_model, d_model, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(d_model, d_model, kernel_size=3, padding=1)
        self.pool = nn.MaxPool1d(kernel_size=3, stride=2, padding=1)
        # Without batch norm the default initialisation would shrink the signal twice.
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Convolve over time, then keep the strongest response of every other step."""
        x = F.elu(self.conv1(x.transpose(1, 2)))
        x = self.pool(F.elu(self.conv2(x)))
        return x.transpose(1, 2)


class InformerClassifier(nn.Module):
    """Encoder-only Informer with a classification head: [N, L, D] float32 -> logits [N, 3]."""

    def __init__(self, config: InformerConfig | None = None) -> None:
        super().__init__()
        self.config = config or InformerConfig()
        c = self.config
        self.embedding = nn.Conv1d(c.features, c.d_model, kernel_size=3, padding=1)
        self.positional_encoding = PositionalEncoding(c.d_model, c.seq_len)
        self.blocks = nn.ModuleList(
            EncoderBlock(c, length, c.sample_seed + index)
            for index, length in enumerate(c.block_lengths())
        )
        self.distilling = nn.ModuleList(DistillingStage(c.d_model) for _ in c.distil_after)
        self.head = nn.Linear(c.d_model, c.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classify each window; the time axis is averaged before the head."""
        expected = (self.config.seq_len, self.config.features)
        if tuple(x.shape[1:]) != expected:
            raise ValueError(f"inputs are {list(x.shape)}, not [N, {expected[0]}, {expected[1]}]")
        x = self.embedding(x.transpose(1, 2)).transpose(1, 2)
        x = self.positional_encoding(x)
        stage = 0
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            if number in self.config.distil_after:
                x = self.distilling[stage](x)
                stage += 1
        logits: Tensor = self.head(x.mean(dim=1))
        return logits


def units(config: InformerConfig | None = None) -> list[str]:
    """Module paths that take one precision as a whole: each attention and feed-forward."""
    count = (config or InformerConfig()).blocks
    return [f"blocks.{i}.{part}" for i in range(count) for part in ("attention", "feed_forward")]


UNITS: list[str] = units()
