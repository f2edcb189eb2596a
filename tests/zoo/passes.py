"""Models whose forward pass is awkward to repeat in part."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class InPlace(nn.Module):
    """ReLU in place after a norm, and a residual added in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.norm = nn.LayerNorm(8)
        self.act = nn.ReLU(inplace=True)
        self.second = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        x = self.act(self.norm(self.first(x)))
        y = self.second(x)
        y += x
        F.relu_(y)
        y[:, 0] = 0.5
        return self.head(y)


class PreActivation(nn.Module):
    """The shortcut reads a value that an in-place ReLU has changed meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.act = nn.ReLU(inplace=True)
        self.second = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        x = self.first(x)
        return self.head(self.second(self.act(x)) + x)


class WrittenView(nn.Module):
    """A view is written to, then the whole is read."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        x = self.first(x)
        x[:, :4].mul_(2.0)
        return self.head(x)


class ValueBranch(nn.Module):
    """Takes one of two ways by the content of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        x = self.first(x)
        if x.mean() > 0:
            x = x * 2
        return self.head(x)


class InputBranch(nn.Module):
    """Takes one of two ways by its input alone, which no precision changes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        factor = 2.0 if bool((x > 0).any()) else 1.0
        return self.head(self.first(x) * factor)


class ShapeBranch(nn.Module):
    """Takes another way for batches of three samples or more."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        y = self.first(x)
        return self.head(torch.tanh(y) if len(x) > 2 else y)


class DataShape(nn.Module):
    """The form of a value inside depends on the content of another."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        y = self.first(x)
        some = y[torch.frac(y * 1e4) > 0.5]
        total = some.sum() / some.shape[0] + (some * torch.ones(some.shape[0])).mean()
        return self.head(y) + total


class Noise(nn.Module):
    """Draws random numbers in every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        y = self.first(x)
        return self.head(y + 0.0 * torch.randn_like(y))


class PythonNoise(nn.Module):
    """Draws from Python's own generator, which PyTorch knows nothing of."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        return self.head(self.first(x)) + 0.0 * random.random()


class Counter(nn.Module):
    """Counts its passes in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.first = nn.Linear(5, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        self.calls += 1
        return self.head(self.first(x))


class RunningMean(nn.Module):
    """Writes to a buffer in every pass."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.head = nn.Linear(8, 3)
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        y = self.first(x)
        self.mean.mul_(1.0).add_(0.0 * y.mean(0))
        return self.head(y)


class SideDoor(nn.Module):
    """A value leaves a module through an attribute and not through its output."""

    class Part(nn.Module):
        """Keeps what it computed on itself."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 8)
            self.hidden: Any = None

        def forward(self, x: Tensor) -> Tensor:
            """[N, 5] -> [N, 8]."""
            self.hidden = self.linear(x)
            return torch.tanh(self.hidden)

    def __init__(self) -> None:
        super().__init__()
        self.part = SideDoor.Part()
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        y = self.head(self.part(x) + self.part.hidden)
        self.part.hidden = None
        return y


class Same(nn.Module):
    """A unit that hands back what it was given when its gate is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.flat = nn.Flatten(0, 0)
        self.tail = nn.Hardtanh(-1e9, 1e9)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        y = self.first(x)
        return self.head(self.tail(self.flat(y)) + y)


class Recurrent(nn.Module):
    """LSTM, GRU and iteration over time steps."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 6, batch_first=True)
        self.gru = nn.GRU(6, 6, batch_first=True)
        self.step = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, 5] -> [N, 3]."""
        y, (last, _) = self.lstm(x)
        y, _ = self.gru(y, last.contiguous())
        total = torch.zeros_like(y[:, 0])
        for now in y.transpose(0, 1):
            total = torch.tanh(self.step(now) + total)
        return self.head(total)


class OwnProducts(nn.Module):
    """A container that multiplies on its own around a child that is a layer too."""

    class Mix(nn.Module):
        """Multiplies its child's output with its input."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 8)

        def forward(self, x: Tensor, *, scale: float) -> Tensor:
            """[N, 8] -> [N, 8]."""
            y = self.inner(x)
            return torch.matmul(y.unsqueeze(2), x.unsqueeze(1)).mean(2) * scale

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.mix = OwnProducts.Mix()
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        y = self.first(x)
        return self.head(self.mix(self.mix(y, scale=0.5), scale=2.0))


class Branches(nn.Module):
    """Two parallel branches, a dead end, and a layer that the output does not need."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(5, 8)
        self.right = nn.Linear(5, 8)
        self.dead = nn.Linear(8, 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """[N, 5] -> {"logits": [N, 3], "aside": [N, 2]}."""
        left, right = self.left(x), self.right(x)
        return {"logits": self.head(left * torch.sigmoid(right)), "aside": self.dead(left)}


class Box:
    """A container that nobody but its model knows."""

    def __init__(self, value: Tensor) -> None:
        self.value = value


class OpaqueOutput(nn.Module):
    """A unit returns an object that holds its tensor."""

    class Part(nn.Module):
        """A linear layer whose output is boxed."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 8)

        def forward(self, x: Tensor) -> Box:
            """[N, 5] -> a box of [N, 8]."""
            return Box(self.linear(x))

    def __init__(self) -> None:
        super().__init__()
        self.part = OpaqueOutput.Part()
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        return self.head(self.part(x).value)


class Autocast(nn.Module):
    """Computes a part of itself in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        with torch.autocast("cpu", torch.bfloat16):
            y = self.first(x)
        return self.head(y.float())


class Mapped(nn.Module):
    """Maps a function over samples; tensors inside have no memory of their own to follow."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        return self.head(torch.vmap(lambda row: torch.tanh(row) * 2)(self.first(x)))


class WrittenInput(nn.Module):
    """Writes into a view of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        return self.head(x[:, :3].mul_(1.0))


class StoredHandedBack(nn.Module):
    """A layer calls a function that hands its own buffer back as it is."""

    shift: Tensor

    class Shift(nn.Module):
        """Adds a buffer."""

        shift: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.rand(8))
            self.register_buffer("shift", torch.rand(8))

        def forward(self, x: Tensor) -> Tensor:
            """[N, 8] -> [N, 8]."""
            return x * self.scale + self.shift.contiguous()

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.part = StoredHandedBack.Shift()
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        return self.head(self.part(self.first(x)))


class Packed(nn.Module):
    """An LSTM over a packed sequence, a named tuple with a constructor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, 5] -> [N, 3]."""
        lengths = torch.full((len(x),), x.shape[1])
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        y, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.head(y[:, -1])


class Options(nn.Module):
    """PyTorch's own transformer with a mask and keyword arguments, shared and normed weights."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.shared = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, 8] -> [N, 3]."""
        y = self.transformer(x, x[:, :3], src_key_padding_mask=x[:, :, 0] > 2)
        y, weights = self.attention(query=self.shared(y), key=y, value=y)
        return self.head(self.shared(y).mean(1) + weights.sum((1, 2))[:, None])
