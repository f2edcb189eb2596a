"""How a layer in integers is rounded where that is not as its scheme says, to learn what would help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from core.numerics.ranges import Site
from core.numerics.rounding import Range


@dataclass(frozen=True, eq=False)
class Variant:
    """What of a layer in integers is rounded, and how; by default as its scheme says.

    Weights stay exact without `weights`, activations without `activations`. `ranges` go before
    the calibrated ones. `factors`, shape (input channels,), divide the input of a linear function
    or convolution and multiply its weight, by the site of that input.
    """

    weights: bool = True
    activations: bool = True
    ranges: Mapping[Site, Range] = field(default_factory=dict)
    factors: Mapping[Site, Tensor] = field(default_factory=dict)


AS_USUAL = Variant()


@dataclass(frozen=True, eq=False)
class InputChannels:
    """`axis` of an operand along which its channels lie; `largest` |weight| that each of them
    meets, shape (channels,), None where they are not to be scaled.
    """

    axis: int
    largest: Tensor | None = None
