"""What can be told of an ONNX file and its arrays before anything is run, without torch: a page says
so at once, where a process of its own would take seconds to load.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core import files
from core.errors import DataError, PolicyError, listed
from core.source.onnx_file import ARRAYS, TARGETS

MOST_UNPACKED = 4 * 10**9
"""Bytes of arrays that may come in a packed file of somebody at a browser."""


@dataclass(frozen=True, slots=True)
class SeenGraph:
    """A file that can be measured as far as its bytes tell. `outputs` are those of float32."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: int
    opset: int


@dataclass(frozen=True, slots=True)
class SeenArrays:
    """A split's arrays: the names of those that are inputs, and how many samples they hold."""

    inputs: tuple[str, ...]
    samples: int
    has_targets: bool


def graph(raw: bytes, name: str) -> SeenGraph:
    """Look at the bytes of an ONNX file called `name`.

    Raises `ModelError` for what cannot be measured, naming operator and node; data outside the
    bytes is refused.
    """
    from onnx import TensorProto

    from core.onnx_graph.read_model import from_bytes

    model = from_bytes(raw, name).model
    stored = {constant.name for constant in model.graph.initializer}
    return SeenGraph(
        tuple(v.name for v in model.graph.input if v.name not in stored),
        tuple(
            v.name for v in model.graph.output if v.type.tensor_type.elem_type == TensorProto.FLOAT
        ),
        len(model.graph.node),
        next((one.version for one in model.opset_import if not one.domain), 0),
    )


def arrays(path: Path, name: str) -> SeenArrays:
    """Look at the arrays of the .npz file `path`, which people call `name`.

    Raises `DataError` for what holds no arrays, none that is an input, unlike numbers of samples, or
    more than `MOST_UNPACKED` bytes.
    """
    try:
        found = files.shapes(path, MOST_UNPACKED)
    except OSError as error:
        raise DataError(f"{name} cannot be read: {files.reason(error)}.", ARRAYS) from error
    inputs = tuple(n for n in found if n != TARGETS)
    counts = {n: shape[0] if shape else 0 for n, shape in found.items()}
    if not inputs:
        raise DataError(f"{name} holds no array of an input.", ARRAYS)
    if len(set(counts.values())) > 1 or not min(counts.values()):
        told = ", ".join(f"{n} {count}" for n, count in list(counts.items())[:4])
        raise DataError(f"The arrays of {name} hold unlike numbers of samples: {told}.", ARRAYS)
    return SeenArrays(inputs, counts[inputs[0]], TARGETS in found)


def check(model: SeenGraph, splits: Mapping[str, SeenArrays], names: Mapping[str, str]) -> None:
    """Raise `DataError` where the arrays of a split, whose file is one of `names`, are not those of
    the model's inputs, and `PolicyError` where what is needed was not given.
    """
    for split, given in splits.items():
        wrong = sorted(set(given.inputs) ^ set(model.inputs))
        if wrong:
            what = "an array for no input" if wrong[0] in given.inputs else "no array for input"
            raise DataError(
                f"{names[split]} holds {what}: {wrong[0]!r}.",
                f"The model's inputs are: {listed(model.inputs)}.",
            )
    if "calibration" not in splits:
        raise PolicyError(
            "No calibration arrays are given.", "Ranges of activations are found on them."
        )
    if "holdout" in splits and "evaluation" not in splits:
        raise PolicyError("Holdout arrays are given without evaluation arrays.", "Give both.")
