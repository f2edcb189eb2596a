"""A residual network for 8x8 images: a stem, three stages of two blocks, a linear head.

He et al. 2016, "Deep Residual Learning for Image Recognition" (CVPR), section 4.2: the CIFAR
networks' widths and strides, with shortcuts of 1x1 convolutions where the shape changes.
"""

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn

from sample_models.digits.classifier import DigitClassifier
from sample_models.digits.images import CLASS_NAMES


@dataclass(frozen=True, slots=True)
class ResnetConfig:
    """Sizes of the model. Every stage but the first halves the image."""

    classes: int = len(CLASS_NAMES)
    widths: tuple[int, ...] = (16, 32, 64)
    blocks: int = 2


class Stem(nn.Module):
    """First convolution: [N, 1, H, W] -> [N, C, H, W]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, normalise, activate."""
        output: Tensor = self.activation(self.norm(self.conv(x)))
        return output


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut: [N, C, H, W] -> [N, D, H / stride, W / stride].

    Each use of ReLU has a module of its own, so that it can have a precision of its own.
    """

    def __init__(self, given: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(given, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.activation1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.activation2 = nn.ReLU()
        self.shortcut: nn.Sequential | None = None
        if stride != 1 or given != width:
            conv = nn.Conv2d(given, width, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(width)))

    def forward(self, x: Tensor) -> Tensor:
        """Add what two convolutions make of the image to the image."""
        branch = self.activation1(self.norm1(self.conv1(x)))
        branch = self.norm2(self.conv2(branch))
        kept = x if self.shortcut is None else self.shortcut(x)
        output: Tensor = self.activation2(branch + kept)
        return output


class DigitsResnet(DigitClassifier):
    """Residual network: images [N, 1, 8, 8] float32 in [-1, 1] -> logits [N, 10]."""

    package = "digits_resnet"

    def __init__(self, config: ResnetConfig | None = None) -> None:
        super().__init__()
        self.config: ResnetConfig = config or ResnetConfig()
        c = self.config
        self.stem = Stem(c.widths[0])
        self.stages = nn.ModuleList()
        given = c.widths[0]
        for number, width in enumerate(c.widths):
            stage = nn.Sequential()
            for index in range(c.blocks):
                stride = 2 if number > 0 and index == 0 else 1
                stage.append(ResidualBlock(given, width, stride))
                given = width
            self.stages.append(stage)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(given, c.classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Classify each image by the mean of the last stage's channels."""
        self.check_inputs(x)
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.head(self.pool(x).flatten(1))
        return logits
