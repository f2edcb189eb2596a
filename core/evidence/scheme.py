"""How integers are done, as data: a key of every piece of evidence.

Two runtimes that both say INT8 may round different tensors; evidence measured under one scheme
says little about the other. Only schemes that the simulator implements are listed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scheme:
    """What is rounded where.

    Weights: symmetric per output channel in [-(2^(b-1)-1), 2^(b-1)-1]. Activations: affine,
    unsigned, per tensor, `activation_bits` wide, ranges from the calibration split (min-max).
    A convolution's output is rounded too when `rounds_conv_output`; products stay float.
    """

    name: str
    activation_bits: int
    rounds_conv_output: bool
    description: str


ORT_CPU = Scheme(
    name="ort-cpu",
    activation_bits=8,
    rounds_conv_output=True,
    description=(
        "ONNX Runtime on CPU, QDQ, U8S8: weights symmetric per output channel, activations affine "
        "unsigned per tensor, a convolution's output quantized, MatMul and Gemm outputs float, "
        "bias in int32 at scale s_x * s_w."
    ),
)

SCHEMES = {scheme.name: scheme for scheme in (ORT_CPU,)}
