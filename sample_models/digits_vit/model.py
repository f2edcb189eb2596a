"""A vision transformer for 8x8 images: 16 patches and a class token, five pre-norm blocks.

Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words" (ICLR), at the size of the images.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sample_models.digits.classifier import DigitClassifier
from sample_models.digits.images import CLASS_NAMES, SIDE


@dataclass(frozen=True, slots=True)
class VitConfig:
    """Sizes of the model."""

    classes: int = len(CLASS_NAMES)
    patch: int = 2
    width: int = 64
    heads: int = 4
    hidden: int = 128
    blocks: int = 5
    dropout: float = 0.1

    def tokens(self) -> int:
        """Length of the sequence: the class token and the patches."""
        return 1 + (SIDE // self.patch) ** 2


class PositionalEncoding(nn.Module):
    """Adds a learned table of positions: [N, L, d] -> [N, L, d]."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(1, tokens, width))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Add the table to every sequence of the batch."""
        return x + self.table


class FeedForward(nn.Module):
    """Two linear layers around a GELU, the same for every token: [N, L, d] -> [N, L, d]."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, hidden)
        self.activation = nn.GELU()
        self.linear2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Widen, activate, narrow back."""
        output: Tensor = self.linear2(self.activation(self.linear1(x)))
        return output


class EncoderBlock(nn.Module):
    """Pre-norm encoder block with a dropout after each of its two branches."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.dropout1 = nn.Dropout(config.dropout)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, config.hidden)
        self.dropout2 = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[N, L, d] -> [N, L, d]."""
        normed = self.norm1(x)
        attended, _ = self.attention(normed, normed, normed, need_weights=False)
        x = x + self.dropout1(attended)
        output: Tensor = x + self.dropout2(self.feed_forward(self.norm2(x)))
        return output


class DigitsVit(DigitClassifier):
    """Vision transformer: images [N, 1, 8, 8] float32 in [-1, 1] -> logits [N, 10]."""

    package = "digits_vit"

    def __init__(self, config: VitConfig | None = None) -> None:
        super().__init__()
        self.config: VitConfig = config or VitConfig()
        c = self.config
        self.patch_embedding = nn.Conv2d(1, c.width, kernel_size=c.patch, stride=c.patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, c.width))
        self.positional_encoding = PositionalEncoding(c.tokens(), c.width)
        self.blocks = nn.ModuleList(EncoderBlock(c) for _ in range(c.blocks))
        self.norm = nn.LayerNorm(c.width)
        self.head = nn.Linear(c.width, c.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classify each image by what the class token has gathered."""
        self.check_inputs(x)
        patches = self.patch_embedding(x).flatten(2).transpose(1, 2)
        # The size from the shape, because len() would fix the batch of an exported graph.
        token = self.class_token.expand(patches.shape[0], -1, -1)
        x = torch.cat((token, patches), dim=1)
        x = self.positional_encoding(x)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x[:, 0]))
        return logits


def units(config: VitConfig | None = None) -> list[str]:
    """Module paths that take one precision as a whole; `nn.MultiheadAttention` is one anyway."""
    return [f"blocks.{i}.feed_forward" for i in range((config or VitConfig()).blocks)]
