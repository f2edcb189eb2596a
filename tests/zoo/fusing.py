"""Products with batch norms and activations around them, as people write them.

Each class says in `FOLDED` which batch norm a runtime folds into which layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def trained(model: nn.Module, seed: int = 0) -> nn.Module:
    """`model` in evaluation mode with batch norms as training leaves them: no statistic, factor
    or shift at its start.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(like: Tensor) -> Tensor:
        return torch.rand(like.shape, generator=generator)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                if module.running_mean is not None and module.running_var is not None:
                    module.running_mean.copy_(draw(module.running_mean) - 0.5)
                    module.running_var.copy_(draw(module.running_var) * 3 + 0.1)
                if module.affine:
                    module.weight.copy_(draw(module.weight) * 2 - 0.5)
                    module.bias.copy_(draw(module.bias) - 0.5)
    return model.eval()


class Norms(nn.Module):
    """A part between the input and a head; `part` is what a case is about."""

    FOLDED: ClassVar[dict[str, str]] = {}
    SHAPE: ClassVar[tuple[int, ...]] = (2, 6, 6)

    def pooled(self, x: Tensor) -> Tensor:
        """[N, C, ...] -> [N, 3]: uneven sums of the channels' means."""
        means = x.flatten(2).mean(2) if x.ndim > 2 else x
        weights = torch.linspace(-1, 1, 3 * means.shape[1]).reshape(-1, 3)
        return (means.unsqueeze(2) * weights).sum(1)


class ConvNorm(Norms):
    """Convolution and batch norm."""

    FOLDED: ClassVar[dict[str, str]] = {"bn": "conv"}

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 5, 3)
        self.bn = nn.BatchNorm2d(5)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2, 6, 6] -> [N, 3]."""
        return self.pooled(self.bn(self.conv(x)))


class ConvNormRelu(Norms):
    """Without a bias, in groups, with an activation behind."""

    FOLDED: ClassVar[dict[str, str]] = {"bn": "conv"}

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, groups=2, bias=False)
        self.bn = nn.BatchNorm2d(6, affine=False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2, 6, 6] -> [N, 3]."""
        return self.pooled(self.act(self.bn(self.conv(x))))


class ConvNormFunctionalRelu(ConvNorm):
    """The activation is a function of the container."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2, 6, 6] -> [N, 3]."""
        return self.pooled(F.relu(self.bn(self.conv(x))))


class ConvRelu6(Norms):
    """An activation that is bounded above, and no batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 5, 3)
        self.act = nn.ReLU6()
        with torch.no_grad():
            self.conv.weight.mul_(20)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2, 6, 6] -> [N, 3]."""
        return self.pooled(self.act(self.conv(x)))


class Conv1dNorm(Norms):
    """One dimension; the same activation serves two layers."""

    FOLDED: ClassVar[dict[str, str]] = {"bn1": "conv1", "bn2": "conv2"}
    SHAPE: ClassVar[tuple[int, ...]] = (2, 9)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(2, 5, 3)
        self.bn1 = nn.BatchNorm1d(5)
        self.conv2 = nn.Conv1d(5, 4, 3, bias=False)
        self.bn2 = nn.BatchNorm1d(4)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2, 9] -> [N, 3]."""
        return self.pooled(self.act(self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))))


class Conv3dNorm(Norms):
    """Three dimensions."""

    FOLDED: ClassVar[dict[str, str]] = {"bn": "conv"}
    SHAPE: ClassVar[tuple[int, ...]] = (2, 4, 4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 3, 2)
        self.bn = nn.BatchNorm3d(3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2, 4, 4, 4] -> [N, 3]."""
        return self.pooled(self.bn(self.conv(x)))


class TransposedNorm(Norms):
    """A transposed convolution has its output channels on the second axis."""

    FOLDED: ClassVar[dict[str, str]] = {"bn": "conv"}

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(2, 5, 3, stride=2)
        self.bn = nn.BatchNorm2d(5)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2, 6, 6] -> [N, 3]."""
        return self.pooled(self.act(self.bn(self.conv(x))))


class GroupedTransposedNorm(Norms):
    """A transposed convolution in groups: the channels of one group are on its second axis."""

    FOLDED: ClassVar[dict[str, str]] = {"bn": "conv"}

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(2, 6, 3, groups=2, bias=False)
        self.bn = nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2, 6, 6] -> [N, 3]."""
        return self.pooled(self.bn(self.conv(x)))


class LinearNorm(Norms):
    """A linear layer, whose output stays in float."""

    FOLDED: ClassVar[dict[str, str]] = {"bn": "linear"}
    SHAPE: ClassVar[tuple[int, ...]] = (5,)

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 7)
        self.bn = nn.BatchNorm1d(7)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        return self.pooled(F.relu(self.bn(self.linear(x))))


class SteppedLinearNorm(Norms):
    """With steps the batch norm takes the second axis, which is not the linear layer's."""

    SHAPE: ClassVar[tuple[int, ...]] = (7, 7)

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(7, 7)
        self.bn = nn.BatchNorm1d(7)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 7, 7] -> [N, 3]."""
        return self.pooled(self.bn(self.linear(x)))


class UsedTwice(ConvNorm):
    """What the convolution gives is read beside the batch norm too."""

    FOLDED: ClassVar[dict[str, str]] = {}

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2, 6, 6] -> [N, 3]."""
        y = self.conv(x)
        return self.pooled(self.bn(y) + y)


class Returned(ConvNorm):
    """What the convolution gives is a second output of the model."""

    FOLDED: ClassVar[dict[str, str]] = {}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """[N, 2, 6, 6] -> {"logits": [N, 3], "features": [N, 5, 4, 4]}."""
        y = self.conv(x)
        return {"logits": self.pooled(self.bn(y)), "features": y}


class SharedNorm(Norms):
    """One batch norm behind two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 5, 3)
        self.conv2 = nn.Conv2d(2, 5, 3)
        self.bn = nn.BatchNorm2d(5)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2, 6, 6] -> [N, 3]."""
        return self.pooled(self.bn(self.conv1(x)) + self.bn(self.conv2(x)))


class SharedWeight(Norms):
    """Two convolutions with one weight and a batch norm each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 5, 3)
        self.conv2 = nn.Conv2d(2, 5, 3)
        self.conv2.weight = self.conv1.weight
        self.bn1 = nn.BatchNorm2d(5)
        self.bn2 = nn.BatchNorm2d(5)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2, 6, 6] -> [N, 3]."""
        return self.pooled(self.bn1(self.conv1(x)) + self.bn2(self.conv2(x)))


class Looped(Norms):
    """A convolution and its batch norm run twice, always together."""

    FOLDED: ClassVar[dict[str, str]] = {"bn": "conv"}

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.bn = nn.BatchNorm2d(2)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2, 6, 6] -> [N, 3]."""
        for _ in range(2):
            x = self.act(self.bn(self.conv(x)))
        return self.pooled(x)


class NormFirst(Norms):
    """Batch norm before the convolution, as in pre-activation networks."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(2)
        self.conv = nn.Conv2d(2, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2, 6, 6] -> [N, 3]."""
        return self.pooled(self.conv(self.bn(x)))


class ReluBetween(ConvNorm):
    """An activation stands between the two."""

    FOLDED: ClassVar[dict[str, str]] = {}

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2, 6, 6] -> [N, 3]."""
        return self.pooled(self.bn(torch.relu(self.conv(x))))


class WithoutStatistics(Norms):
    """A batch norm that keeps no running statistics takes those of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 5, 3)
        self.bn = nn.BatchNorm2d(5, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2, 6, 6] -> [N, 3]."""
        return self.pooled(self.bn(self.conv(x)))


class AlwaysTraining(ConvNorm):
    """A batch norm that is put into training mode by the model itself."""

    FOLDED: ClassVar[dict[str, str]] = {}

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2, 6, 6] -> [N, 3]."""
        self.bn.train()
        return self.pooled(self.bn(self.conv(x)))


class UnitThenNorm(Norms):
    """Two convolutions that can be one unit, one batch norm inside it and one behind."""

    FOLDED: ClassVar[dict[str, str]] = {"unit.bn": "unit.conv1", "bn": "unit.conv2"}

    class Unit(nn.Module):
        """What the source declares as one layer."""

        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(2, 4, 3)
            self.bn = nn.BatchNorm2d(4)
            self.act = nn.ReLU()
            self.conv2 = nn.Conv2d(4, 5, 3)

        def forward(self, x: Tensor) -> Tensor:
            """[N, 2, 6, 6] -> [N, 5, 2, 2]."""
            y: Tensor = self.conv2(self.act(self.bn(self.conv1(x))))
            return y

    def __init__(self) -> None:
        super().__init__()
        self.unit = UnitThenNorm.Unit()
        self.bn = nn.BatchNorm2d(5)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2, 6, 6] -> [N, 3]."""
        return self.pooled(torch.relu(self.bn(self.unit(x))))


class BareWeight(Norms):
    """The model itself convolves with a parameter of its own, without naming a bias."""

    FOLDED: ClassVar[dict[str, str]] = {"bn": "(model)"}

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(5, 2, 3, 3) / 4)
        self.bn = nn.BatchNorm2d(5)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2, 6, 6] -> [N, 3]."""
        return self.pooled(self.bn(F.conv2d(x, self.kernel)))


CASES: tuple[Callable[[], Norms], ...] = (
    ConvNorm, ConvNormRelu, ConvNormFunctionalRelu, ConvRelu6, Conv1dNorm, Conv3dNorm,
    TransposedNorm, GroupedTransposedNorm, LinearNorm, SteppedLinearNorm, UsedTwice, Returned,
    SharedNorm, SharedWeight, Looped, NormFirst, ReluBetween, WithoutStatistics, UnitThenNorm,
    BareWeight,
)  # fmt: skip
"""Those that a runtime folds and those that it does not, but for the one below."""

STATEFUL: Callable[[], Norms] = AlwaysTraining
"""Its running statistics move from pass to pass."""


class Holder:
    """An object that no tree of tensors knows."""

    def __init__(self, features: Tensor, logits: Tensor) -> None:
        self.features, self.logits = features, logits


class OpaqueFeatures(ConvNorm):
    """Returns an object with what the convolution gives, the judged output, and logits."""

    FOLDED: ClassVar[dict[str, str]] = {}

    def forward(self, x: Tensor) -> Holder:  # type: ignore[override]
        """[N, 2, 6, 6] -> an object with [N, 5, 4, 4] and [N, 3]."""
        y = self.conv(x)
        return Holder(y, self.pooled(self.bn(y)))
