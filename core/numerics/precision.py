"""The precisions a layer can be given, as data: a pair of formats, of weights and of activations.

Adding a precision means adding one entry here, what targets do with it in `kernel_table.toml`, and
its peak where hardware profiles know one. Everything else reads `route` and the two formats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from core.errors import PolicyError

Kind = Literal["float", "integer"]
Scales = Literal["none", "tensor", "channel", "group"]
Route = Literal["cast", "calibrated", "scaled", "dynamic", "weights"]
"""How a layer runs in a precision. *cast*: weights and every result are cast to a float format.
*calibrated*: both operands of its products lie on integer grids, those of activations found before.
*scaled*: both operands are cast to a float format over scales, those of activations found before.
*dynamic*: both operands of its products with matrices lie on integer grids, those of activations set
while it runs. *weights*: the weights of its products are rounded and nothing else.
"""


Width = tuple[float, bool]


@dataclass(frozen=True, slots=True)
class TensorFormat:
    """How one tensor is kept: numbers of `bits` each, and what shares a scale.

    A float format is torch's `dtype` and needs no scale. Integers have one scale per tensor, per
    output channel, or per `group` of neighbours along the inputs of a product; so has a float format
    too narrow to hold most tensors as they are. Where the grids of groups lie says the quantizer called
    `grid` ("": the default one of `core.numerics.quantizers`). `dynamic`: the scale is set while the
    model runs.
    """

    kind: Kind
    bits: int
    scales: Scales = "none"
    group: int = 0
    dtype: str = ""
    dynamic: bool = False
    grid: str = ""


@dataclass(frozen=True, slots=True)
class Precision:
    """Formats of a layer's `weights` and of its `activations` (None: they stay as they come).

    How each is drawn stands in `precision_marks.toml`.
    """

    name: str
    weights: TensorFormat
    activations: TensorFormat | None

    @property
    def bits(self) -> int:
        """Storage of one weight, scales left out."""
        return self.weights.bits

    @property
    def bytes_per_weight(self) -> float:
        """Bytes that one stored weight takes (0.5 for a 4-bit format), scales left out."""
        return self.weights.bits / 8

    @property
    def meaning(self) -> str:
        """What it rounds, in a few words."""
        if self.is_cast:
            return f"{self.bits} bits: weights and every result are cast"
        if self.is_weights_only:
            return (
                f"{self.bits} bits in groups of {self.weights.group}: weights of matrix products "
                "and tables of embeddings alone; convolutions and all else stay as they are"
            )
        if self.is_dynamic:
            return (
                f"{self.bits} bits: weights of matrix products, and what they multiply over ranges "
                "set while the model runs; convolutions and all else stay as they are"
            )
        if self.is_scaled:
            return (
                f"{self.bits} bits of float over scales: weights, and what they multiply over ranges "
                "that calibration found; all else stays as it is"
            )
        return f"{self.bits} bits: weights and activations, over ranges that calibration found"

    @property
    def width(self) -> Width:
        """What precisions are ordered by: bits a weight with its share of a float32 scale (0 where a
        whole channel shares one); of as many those that leave activations alone are wider.
        """
        kept = self.weights
        return kept.bits + (32 / kept.group if kept.group else 0), self.activations is None

    @property
    def float_dtype(self) -> str:
        """Torch's name of the float format that weights are cast to; "" for integers."""
        return self.weights.dtype

    @property
    def route(self) -> Route:
        """How a layer runs in it."""
        if self.activations is None:
            return "weights"
        if self.weights.kind == "float":
            return "cast" if self.weights.scales == "none" else "scaled"
        return "dynamic" if self.activations.dynamic else "calibrated"

    @property
    def is_cast(self) -> bool:
        """Whether a layer is cast to a float format."""
        return self.route == "cast"

    @property
    def is_calibrated(self) -> bool:
        """Whether products are of integers on both sides, on ranges found before."""
        return self.route == "calibrated"

    @property
    def is_scaled(self) -> bool:
        """Whether products are of floats in few bits on both sides, over scales found before."""
        return self.route == "scaled"

    @property
    def is_dynamic(self) -> bool:
        """Whether products with matrices are of integers on ranges set while the model runs."""
        return self.route == "dynamic"

    @property
    def is_weights_only(self) -> bool:
        """Whether weights alone are rounded."""
        return self.route == "weights"


def _cast(name: str, dtype: str, bits: int) -> Precision:
    kept = TensorFormat("float", bits, dtype=dtype)
    return Precision(name, kept, kept)


def integers(name: str, bits: int) -> Precision:
    """Products of integers: weights of `bits` with a scale per output channel, activations of 8
    bits with one per tensor, on the grids that a scheme says.
    """
    activations = TensorFormat("integer", 8, "tensor")
    return Precision(name, TensorFormat("integer", bits, "channel"), activations)


def _scaled(name: str, dtype: str) -> Precision:
    return Precision(
        name,
        TensorFormat("float", 8, "channel", dtype=dtype),
        TensorFormat("float", 8, "tensor", dtype=dtype),
    )


def _grouped(name: str, bits: int, group: int) -> Precision:
    return Precision(name, TensorFormat("integer", bits, "group", group), None)


FP32 = _cast("FP32", "float32", 32)
FP16 = _cast("FP16", "float16", 16)
BF16 = _cast("BF16", "bfloat16", 16)
INT8 = integers("INT8", 8)
FP8 = _scaled("FP8", "float8_e4m3fn")
INT8_DYNAMIC = Precision(
    "INT8-dynamic", INT8.weights, TensorFormat("integer", 8, "tensor", dynamic=True)
)
INT8_W = _grouped("INT8-W", 8, 128)
INT4_G32 = _grouped("INT4-g32", 4, 32)
INT4_G128 = _grouped("INT4-g128", 4, 128)
INT2_G32 = _grouped("INT2-g32", 2, 32)

_REGISTRY: dict[str, Precision] = {
    p.name: p
    for p in (FP32, FP16, BF16, FP8, INT8, INT8_DYNAMIC, INT8_W, INT4_G32, INT4_G128, INT2_G32)
}

REFERENCE = FP32.name
"""The precision a model is trained in; every difference is measured against it."""


FIRST_VISIT = ("FP16", "BF16", "INT8", "INT4-g32")
"""What an analysis measures beside the reference unless it is told otherwise."""


def width(name: str) -> Width:
    """What the precision called `name` is ordered by: the least is the narrowest."""
    return get(name).width


def names() -> tuple[str, ...]:
    """All registered precisions, from the widest to the narrowest."""
    return tuple(sorted(_REGISTRY, key=lambda n: (-width(n)[0], not width(n)[1], n)))


def simulated() -> tuple[str, ...]:
    """All registered precisions but the reference, from the widest to the narrowest."""
    return tuple(name for name in names() if name != REFERENCE)


def as_named(typed: str) -> str:
    """The name of the precision that a person has typed in letters of any case; what was typed where
    there is none.
    """
    wanted = typed.strip()
    return next((name for name in _REGISTRY if name.upper() == wanted.upper()), wanted)


def get(name: str) -> Precision:
    """The precision called `name`; raises `PolicyError` with the known names otherwise."""
    try:
        return _REGISTRY[name]
    except KeyError:
        known = ", ".join(names())
        raise PolicyError(f"Unknown precision {name!r}.", f"Use one of: {known}.") from None
