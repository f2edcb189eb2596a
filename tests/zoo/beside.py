"""Models of the zoo side by side in one, so that one export and one session serve many."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.source.contract import ModelSource
from tests.zoo import awkward, fusing, models, passes
from tests.zoo.sources import source_of

Make = Callable[[], nn.Module]


class Beside(nn.Module):
    """Every part gets the input for itself; answers are laid side by side."""

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)

    def forward(self, x: Tensor) -> Tensor:
        """[N, ...] -> [N, all answers]."""
        found = []
        for part in self.parts.values():
            given = part(x.clone())
            given = next(iter(given.values())) if isinstance(given, dict) else given
            found.append(given.flatten(1))
        return torch.cat(found, 1)


class Up(nn.Module):
    """Transposed convolutions, in groups and with a batch norm, channels of unequal ranges."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(2, 6, 4, 2, 1)
        self.bn = nn.BatchNorm2d(6)
        self.grp = nn.ConvTranspose2d(6, 4, 3, 1, 1, groups=2)
        self.head = nn.Linear(4, 3)
        with torch.no_grad():
            self.up.weight[:, 3] *= 30

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2, H, W] -> [N, 3]."""
        found: Tensor = self.head(F.relu(self.grp(F.relu(self.bn(self.up(x))))).mean((2, 3)))
        return found


class Attention(nn.Module):
    """Attention written with einsum, weights with one and with several axes of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Parameter(torch.randn(6, 2, 3))
        self.k = nn.Parameter(torch.randn(6, 2, 3))
        self.v = nn.Parameter(torch.randn(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, 6] -> [N, 6]."""
        q, k = (torch.einsum("btd,dhe->bhte", x, w) for w in (self.q, self.k))
        scores = torch.einsum("bhte,bhse->bts", q, k).softmax(-1)
        return torch.einsum("bts,bsd->btd", scores, torch.einsum("...d,de->...e", x, self.v)).sum(1)


class LinearAndEinsum(nn.Module):
    """Linear layers around an einsum of activations and one of a weight, as one unit."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(6, 6), nn.Linear(6, 6)
        self.out = nn.Parameter(torch.randn(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, 6] -> [N, 3]."""
        scores = torch.einsum("btd,bsd->bts", self.q(x), self.k(x)).softmax(-1)
        return torch.einsum("btd,de->bte", scores @ x, self.out).mean(1)


class DownAndUp(nn.Module):
    """A convolution and a transposed one as one unit."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.ConvTranspose2d(2, 4, 2), nn.Conv2d(4, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2, H, W] -> [N, 3]."""
        found: Tensor = self.down(torch.relu(self.up(x))).mean((2, 3))
        return found


class Lookup(nn.Module):
    """A table and a product as one unit."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.mix = nn.Embedding(20, 6), nn.Linear(6, 3)

    def forward(self, ids: Tensor) -> Tensor:
        """[N, T] -> [N, 3]."""
        found: Tensor = self.mix(self.table(ids)).mean(1)
        return found


class Recurrent(nn.Module):
    """A recurrent layer, the mean over its steps, a head."""

    def __init__(self, kind: Callable[..., nn.Module], hidden: int = 8, **given: object) -> None:
        super().__init__()
        self.recurrent = kind(5, hidden, batch_first=True, **given)
        width = int(str(given.get("proj_size", hidden)))
        self.head = nn.Linear(width * (2 if given.get("bidirectional") else 1), 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, 5] -> [N, 3]."""
        found: Tensor = self.head(self.recurrent(x)[0].mean(1))
        return found


class Cells(nn.Module):
    """A cell over three steps."""

    def __init__(self, kind: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.cell = kind(5, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, 5] -> [N, 3]."""
        state = hidden = x.new_zeros(x.shape[0], 6)
        for step in range(3):
            if isinstance(self.cell, nn.LSTMCell):
                hidden, state = self.cell(x[:, step], (hidden, state))
            else:
                hidden = self.cell(x[:, step], hidden)
        found: Tensor = self.head(hidden)
        return found


class Bag(nn.Module):
    """A bag of rows and a head."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(20, 6, mode=mode)
        self.head = nn.Linear(6, 3)

    def forward(self, ids: Tensor) -> Tensor:
        """[N, W] -> [N, 3]."""
        found: Tensor = self.head(self.bag(ids))
        return found


def _padded() -> nn.Module:
    return nn.Sequential(
        nn.Identity(), nn.ZeroPad2d(1), nn.Conv2d(2, 4, 3), nn.ReflectionPad2d(1), nn.Dropout(),
        nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3),
    )  # fmt: skip


VECTORS: dict[str, Make] = {
    kind.__name__: kind
    for kind in (
        passes.InPlace, passes.PreActivation, passes.WrittenView, passes.SideDoor, passes.Same,
        passes.OwnProducts, passes.Branches, passes.Mapped, passes.WrittenInput,
        passes.StoredHandedBack, awkward.Shared, awkward.BatchCentred, awkward.FrozenBuffers,
        models.TiedWeights, models.LoopedModule, models.DictOutput,
    )
}  # fmt: skip
STEPS: dict[str, Make] = {
    "lstm": lambda: Recurrent(nn.LSTM),
    "lstm_both": lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True),
    "lstm_large": lambda: Recurrent(nn.LSTM, hidden=96),
    "lstm_projected": lambda: Recurrent(nn.LSTM, proj_size=3),
    "gru_both": lambda: Recurrent(nn.GRU, num_layers=2, bidirectional=True),
    "rnn": lambda: Recurrent(nn.RNN, nonlinearity="relu"),
    "rnn_both": lambda: Recurrent(nn.RNN, num_layers=2, bidirectional=True),
    "lstm_cell": lambda: Cells(nn.LSTMCell),
    "gru_cell": lambda: Cells(nn.GRUCell),
    "rnn_cell": lambda: Cells(nn.RNNCell),
}
APART = ("Looped", "AlwaysTraining")
"""Batch norms that the exporter folds where the plan does not, or the other way round."""
IMAGES: dict[str, Make] = {
    kind.__name__: kind  # type: ignore[attr-defined]
    for kind in fusing.CASES
    if kind().SHAPE == fusing.Norms.SHAPE and kind.__name__ not in APART  # type: ignore[attr-defined]
}
SMALL_IMAGES: dict[str, Make] = {"up": Up, "padded": _padded, "unit": DownAndUp}
TOKENS: dict[str, Make] = {
    "table": models.TokenModel,
    "unit": Lookup,
    **{f"bag_{mode}": (lambda mode=mode: Bag(mode)) for mode in ("mean", "sum", "max")},
}
SIXES: dict[str, Make] = {
    "attention": Attention, "unit": LinearAndEinsum, "transformer": models.TinyTransformer,
}  # fmt: skip
EIGHTS: dict[str, Make] = {
    "encoder": models.Encoder, "einsum": awkward.EinsumAttention, "options": passes.Options,
}  # fmt: skip

GROUPS: dict[str, tuple[dict[str, Make], tuple[int, ...], int]] = {
    "vectors": (VECTORS, (5,), 0),
    "steps": (STEPS, (7, 5), 0),
    "images": (IMAGES, fusing.Norms.SHAPE, 0),
    "small images": (SMALL_IMAGES, (2, 4, 4), 0),
    "tokens": (TOKENS, (4,), 20),
    "sequences of 6": (SIXES, (5, 6), 0),
    "sequences of 8": (EIGHTS, (5, 8), 0),
}
"""What each group holds, the shape of its input, and how many ids there are."""


def beside(group: str) -> ModelSource:
    """A group as one source; no two tensors of it are equal, for an exporter keeps equal ones once."""
    makes, shape, ids = GROUPS[group]
    torch.manual_seed(0)
    model = fusing.trained(Beside({name: make() for name, make in makes.items()}))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
    units = ("parts.unit",) if "unit" in makes else ()
    return source_of(model, shape, ids=ids, units=units, name=group)
