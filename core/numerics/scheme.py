"""How integers are done, as data: a key of every piece of evidence.

Two runtimes that both say INT8 may round different tensors; evidence measured under one scheme
says little about the other. Only schemes that the simulator implements are listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from core.errors import PolicyError
from core.files import Bits

Grids = Literal["affine", "symmetric", "symmetric by sign"]
"""How an activation's grid lies: *affine*: unsigned with a zero point; *symmetric*: signed around
0; *symmetric by sign*: signed around 0, or unsigned from 0 where calibration saw nothing below 0.
"""
Bias = Literal["int32", "float"]
Table = Literal["affine", "rows", "float"]
"""An embedding table: one affine grid, a symmetric grid per row, or kept in float."""

ONE_NORM = ("layer_norm", "instance_norm", "batch_norm")
NORMS = (*ONE_NORM, "group_norm")


@dataclass(frozen=True, slots=True)
class Scheme:
    """What is rounded where. Facts of the runtime, with where they come from.

    Weights are symmetric in [-(2^(b-1)-1), 2^(b-1)-1], per output channel where
    `weights_per_channel` holds. Activations are per tensor, `activation_bits` wide, on
    `activations`; the operands of products and convolutions always are. `rounds_outputs` names
    the operations (conv, linear, matmul) whose output is rounded too, `input_functions` and
    `output_functions` the torch functions inside a layer whose inputs or output are.
    `norm_weights`: the scale of a norm is stored in integers, one grid per tensor.
    `softmax_to_one`: the output of a rounded softmax has the range [0, 1], whatever was seen.
    `rounds_constants`: such a function also takes rounded what does not depend on the model's
    inputs (a parameter, a table made from sizes).
    """

    name: str
    activation_bits: Bits = 8
    activations: Grids = "affine"
    weights_per_channel: bool = True
    bias: Bias = "int32"
    table: Table = "affine"
    rounds_outputs: tuple[str, ...] = ("conv",)
    input_functions: tuple[str, ...] = ()
    output_functions: tuple[str, ...] = ()
    norm_weights: bool = False
    softmax_to_one: bool = False
    rounds_constants: bool = False
    description: str = ""
    source: str = ""

    @property
    def functions(self) -> frozenset[str]:
        """The functions that are no products and are rounded, wherever they stand."""
        return frozenset((*self.input_functions, *self.output_functions))

    @property
    def rounds_between_layers(self) -> bool:
        """Whether more is rounded than products and what layers give, so that no file is built."""
        return bool(self.functions) or self.activations == "symmetric by sign"

    @property
    def is_mixed_sign(self) -> bool:
        """Whether unsigned activations meet signed weights (U8S8)."""
        return self.activations != "symmetric"


ORT_CPU = Scheme(
    name="ort-cpu",
    description=(
        "ONNX Runtime on CPU, QDQ, U8S8: weights symmetric per output channel, activations affine "
        "unsigned per tensor, a convolution's output quantized, MatMul and Gemm outputs float, "
        "bias in int32 at scale s_x * s_w."
    ),
    source="onnxruntime 1.32.0, quantization/qdq_quantizer.py; https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html",
)

_ORT_BOTH = (
    "add", "mul", "multiply", "cat", "concat", "concatenate", "stack", "softmax", "sigmoid", "silu",
    "leaky_relu", *NORMS,
)  # fmt: skip

ORT_CPU_ALL = Scheme(
    name="ort-cpu-all",
    rounds_outputs=("conv", "linear", "matmul"),
    input_functions=(*_ORT_BOTH, "split", "chunk", "tensor_split"),
    output_functions=(*_ORT_BOTH, "relu", "relu6", "hardtanh", "clamp", "clip"),
    norm_weights=True,
    softmax_to_one=True,
    rounds_constants=True,
    description=(
        "As ort-cpu, with every operator that quantize_static takes by default: outputs of MatMul "
        "and Gemm, inputs and outputs of adds, products, concatenations, softmax, sigmoid, SiLU, "
        "leaky ReLU and norms, inside a layer or between layers, inputs of splits, outputs of ReLU and "
        "clips; softmax "
        "over [0, 1], a norm's scale in int8."
    ),
    source="onnxruntime 1.32.0, quantization/registry.py (QDQRegistry, QLinearOpsRegistry), operators/*.py, base_quantizer.py (adjust_tensor_ranges)",
)

TENSORRT = Scheme(
    name="tensorrt",
    activations="symmetric",
    bias="float",
    table="float",
    rounds_outputs=(),
    description=(
        "TensorRT with explicit Q/DQ: weights symmetric per output channel, activations symmetric "
        "signed per tensor in [-128, 127] with zero point 0, the inputs of convolutions and "
        "matrix products quantized and not their outputs, bias and everything else in float."
    ),
    source="https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-with-quantized-types.html and quantized-types-explicit-quantization.html (Q/DQ layer-placement recommendations)",
)

_NNCF_INPUTS = (
    "add", "sub", "mul", "div", "truediv", "pow", "maximum", "minimum", "mean", "sum",
    "interpolate", *NORMS,
)  # fmt: skip

OPENVINO = Scheme(
    name="openvino",
    activations="symmetric by sign",
    bias="float",
    table="rows",
    rounds_outputs=(),
    input_functions=_NNCF_INPUTS,
    description=(
        "NNCF for OpenVINO on CPU, preset performance: weights symmetric per output channel in "
        "[-127, 127], activations symmetric per tensor, unsigned where calibration saw nothing "
        "below 0; inputs of convolutions, products, adds, norms and means quantized, also between "
        "layers, outputs not; bias in float. NNCF's bias correction and overflow fix are not simulated."
    ),
    source="openvinotoolkit/nncf, src/nncf/common/hardware/setups/cpu.py, qspaces.py and src/nncf/quantization/fake_quantize.py (symmetric_range)",
)

OPENVINO_MIXED = Scheme(
    name="openvino-mixed",
    activations="affine",
    bias="float",
    table="rows",
    rounds_outputs=(),
    input_functions=_NNCF_INPUTS,
    description=(
        "NNCF for OpenVINO on CPU, preset mixed, which model_type=TRANSFORMER selects: as openvino, "
        "with affine activations."
    ),
    source="openvinotoolkit/nncf, src/nncf/quantization/algorithms/min_max/algorithm.py (preset) and fake_quantize.py (asymmetric_range)",
)

SCHEMES = {s.name: s for s in (ORT_CPU, ORT_CPU_ALL, TENSORRT, OPENVINO, OPENVINO_MIXED)}


def names() -> tuple[str, ...]:
    """Every scheme by name, the default first."""
    return tuple(SCHEMES)


def get(name: str) -> Scheme:
    """The scheme called `name`; raises `PolicyError` naming the known ones."""
    if name not in SCHEMES:
        raise PolicyError(f"There is no scheme {name!r}.", f"Known: {', '.join(names())}.")
    return SCHEMES[name]


def check_built(scheme: Scheme) -> None:
    """Raise `PolicyError` for a scheme that rounds more than is written into ONNX files."""
    if not scheme.rounds_between_layers:
        return
    buildable = [other.name for other in SCHEMES.values() if not other.rounds_between_layers]
    raise PolicyError(
        f"Scheme {scheme.name} also rounds what functions between layers take or give; ONNX files are "
        f"built, verified and profiled under {' and '.join(buildable)} alone.",
        f"Analyze the model with `--scheme {buildable[0]}`, into another folder, and plan there. "
        "Of a PyTorch model plans, projections and other tools' files work under every scheme.",
    )


def mismatch(analysis_scheme: str, target_scheme: str) -> str | None:
    """What to say where a map goes to a target of another scheme; None where they are one.

    Both are names. A name that is not known counts as another scheme.
    """
    if analysis_scheme == target_scheme:
        return None
    return (
        f"Not measured under the target's scheme: the evidence is for {analysis_scheme}, the "
        f"target rounds by {target_scheme}{_difference(analysis_scheme, target_scheme)}. "
        f"To measure it: analyze --scheme {target_scheme}."
    )


def _difference(one: str, other: str) -> str:
    """In brackets, which facts differ; "" where a scheme is not known."""
    if one not in SCHEMES or other not in SCHEMES:
        return ""
    a, b = SCHEMES[one], SCHEMES[other]
    found = []
    if a.activations != b.activations:
        found.append(f"activations {b.activations}, not {a.activations}")
    if (a.rounds_outputs, a.input_functions, a.output_functions) != (
        b.rounds_outputs, b.input_functions, b.output_functions,
    ):  # fmt: skip
        found.append("other tensors rounded")
    if a.bias != b.bias:
        found.append(f"bias in {b.bias}")
    return f" ({'; '.join(found)})" if found else ""
