"""The precisions a layer can be given, as data.

Adding a precision means adding one entry here: the simulator reads `kind` and `bits`, the size
estimate reads `bits`, hardware profiles name a precision or fall back, and the pages draw
whatever an analysis carries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from core.errors import PolicyError

Kind = Literal["float", "integer"]


@dataclass(frozen=True, slots=True)
class Precision:
    """One numeric format.

    `bits` is the storage of one weight. A `float` format casts weights and activations
    (`float_dtype` is torch's name of it); an `integer` format maps them to a grid with scales.
    `short` is the label drawn beside the colour, `marker` the second cue of a chart.
    """

    name: str
    bits: int
    kind: Kind
    short: str
    float_dtype: str = ""
    marker: str = "circle"

    @property
    def bytes_per_weight(self) -> float:
        """Bytes that one stored weight takes (0.5 for a 4-bit format)."""
        return self.bits / 8


FP32 = Precision("FP32", 32, "float", "32", "float32", "square")
FP16 = Precision("FP16", 16, "float", "16", "float16", "triangle-up")
BF16 = Precision("BF16", 16, "float", "b16", "bfloat16", "triangle-down")
INT8 = Precision("INT8", 8, "integer", "8", marker="circle")

_REGISTRY: dict[str, Precision] = {p.name: p for p in (FP32, FP16, BF16, INT8)}

REFERENCE = FP32.name
"""The precision a model is trained in; every difference is measured against it."""


def names() -> tuple[str, ...]:
    """All registered precisions, from the widest to the narrowest."""
    return tuple(sorted(_REGISTRY, key=lambda n: (-_REGISTRY[n].bits, n)))


def simulated() -> tuple[str, ...]:
    """All registered precisions but the reference, from the widest to the narrowest."""
    return tuple(name for name in names() if name != REFERENCE)


def get(name: str) -> Precision:
    """The precision called `name`; raises `PolicyError` with the known names otherwise."""
    try:
        return _REGISTRY[name]
    except KeyError:
        known = ", ".join(names())
        raise PolicyError(f"Unknown precision {name!r}.", f"Use one of: {known}.") from None
