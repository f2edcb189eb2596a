"""What the tensors of a graph are, found by running it: types, and shapes for few samples.

Shapes in a file may be missing, dynamic or wrong; what a run gives is none of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto

from core.errors import ModelError, told
from core.onnx_graph.session import Feed, open_session
from core.onnx_graph.surgery import copied

FLOAT = int(TensorProto.FLOAT)
FEW = 2
"""Samples that shapes are taken from: one alone is special, to a Squeeze for instance. So a sample that
is to be run by itself is run as this many copies.
"""


@dataclass(frozen=True, slots=True)
class TensorForm:
    """A tensor when `FEW` samples are run: `kind` as ONNX numbers types. `axes` are its sizes, None
    where the number of samples, or what an input leaves open, may change one. `per_sample` are
    the bytes that it takes for each sample.
    """

    kind: int
    shape: tuple[int, ...]
    axes: tuple[int | None, ...]
    per_sample: float

    def info(self, name: str) -> ValueInfoProto:
        """The form as a graph says it."""
        return onnx.helper.make_tensor_value_info(name, self.kind, list(self.axes))


def fixed_batch(model: ModelProto | ort.InferenceSession) -> int | None:
    """How many samples the graph takes at a time, where it takes no other number."""
    if isinstance(model, ort.InferenceSession):
        shapes = [given.shape for given in model.get_inputs()]
    else:
        shapes = [
            [d.dim_value or d.dim_param for d in v.type.tensor_type.shape.dim]
            for v in model.graph.input
        ]
    first = {shape[0] for shape in shapes if shape}
    sizes = {size for size in first if isinstance(size, int) and size > 0}
    return sizes.pop() if len(sizes) == 1 and len(first) == 1 else None


def chunks(feed: Feed, size: int | None) -> list[tuple[Feed, int]]:
    """`feed` in parts of `size` samples, with how many of each part count: the last is filled up
    with its last sample. All at once where the size is free.
    """
    total = len(next(iter(feed.values())))
    if size is None:
        return [(feed, total)]
    found = []
    for start in range(0, total, size):
        part = {name: values[start : start + size] for name, values in feed.items()}
        count = len(next(iter(part.values())))
        if count < size:
            part = {
                n: np.concatenate([v, np.repeat(v[-1:], size - count, axis=0)])
                for n, v in part.items()
            }
        found.append((part, count))
    return found


def with_outputs(
    model: ModelProto, names: Sequence[str], forms: Mapping[str, TensorForm]
) -> ModelProto:
    """A copy of `model` that gives the tensors `names`, and nothing else."""
    found = copied(model)
    del found.graph.output[:]
    for name in names:
        known = forms[name].info(name) if name in forms else ValueInfoProto(name=name)
        found.graph.output.append(known)
    return found


def observed_forms(model: ModelProto, feed: Feed, origin: str) -> dict[str, TensorForm]:
    """The form of every input and every tensor that `model` makes when `feed` is run.

    Two samples are run, and three; as many as the graph takes where it takes no other number. Raises
    `ModelError` where that fails.
    """
    made = [name for node in model.graph.node for name in node.output if name]
    size = fixed_batch(model)
    is_open = any(
        not d.dim_value > 0 for v in model.graph.input for d in v.type.tensor_type.shape.dim[1:]
    ) or any(not v.type.tensor_type.HasField("shape") for v in model.graph.input)
    session = open_session(with_outputs(model, made, {}))
    runs = []
    try:
        for count in (size,) if size else (FEW, FEW + 1):
            few = {n: np.resize(v[:count], (count, *v.shape[1:])) for n, v in feed.items()}
            values: list[Any] = session.run(made, few)
            runs.append({**few, **dict(zip(made, values, strict=True))})
    except Exception as error:  # ONNX Runtime has a class of its own for each status
        raise ModelError(
            f"ONNX Runtime cannot run {origin}: {told(error)}.",
            "Give a file that it runs on the CPU, and arrays that fit its inputs.",
        ) from error
    found = {}
    for name in runs[0]:
        others = [run[name] for run in runs]
        if all(isinstance(one, np.ndarray) and one.ndim == others[0].ndim for one in others):
            found[name] = _form(others, size or FEW, is_open=is_open)
    return found


def _form(values: Sequence[NDArray[Any]], samples: int, *, is_open: bool) -> TensorForm:
    first, last = values[0], values[-1]
    kind = int(onnx.helper.np_dtype_to_tensor_dtype(first.dtype))
    axes = tuple(
        None if is_open or a != b else a for a, b in zip(first.shape, last.shape, strict=True)
    )
    grown = last.nbytes - first.nbytes if len(values) > 1 else first.nbytes / samples
    return TensorForm(kind, tuple(first.shape), axes, grown)
