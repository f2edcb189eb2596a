"""Running a built model: sessions of ONNX Runtime, and the graph that they really execute."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from core.errors import ModelError
from core.numerics.saturation import saturates
from core.onnx_graph.surgery import part_weights
from core.source.batches import Inputs, count, take
from core.source.trees import tensors

PROVIDERS = ["CPUExecutionProvider"]
FATAL_ONLY = 4
COPY = "__own"
BATCH = 100

Feed = dict[str, NDArray[Any]]


def exact_sums() -> dict[str, str]:
    """Entries of a session's configuration that keep this processor from saturating; none where it
    does not.

    ONNX Runtime then multiplies by weights in uint8, which is exact and slower. It does so wherever
    it is told to, with VNNI too, so only processors that need it are told.
    """
    return {"session.x64quantprecision": "1"} if saturates() else {}


def serialized(model: onnx.ModelProto) -> bytes:
    """`model` as a session reads it. With `exact_sums` a weight of several kernels is copied: ONNX
    Runtime 1.32 names the weight in uint8 after the one in int8, and stops where it has the name.
    """
    if exact_sums():
        apart = onnx.ModelProto()
        apart.CopyFrom(model)
        part_weights(apart, COPY)
        model = apart
    return bytes(model.SerializeToString())


def options(threads: int = 1) -> ort.SessionOptions:
    """All graph optimisations, so many threads, exact sums, and nothing on stderr: errors are
    raised.
    """
    found = ort.SessionOptions()
    found.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    found.intra_op_num_threads = threads
    found.inter_op_num_threads = 1
    found.log_severity_level = FATAL_ONLY
    for key, value in exact_sums().items():
        found.add_session_config_entry(key, value)
    return found


def open_session(
    model: onnx.ModelProto, disabled: Sequence[str] = (), *, threads: int = 1,
    settings: ort.SessionOptions | None = None,
) -> ort.InferenceSession:  # fmt: skip
    """A session on the CPU, without the graph optimisers named in `disabled`."""
    return ort.InferenceSession(
        serialized(model), settings or options(threads), providers=PROVIDERS,
        disabled_optimizers=list(disabled),
    )  # fmt: skip


def executed(model: onnx.ModelProto, disabled: Sequence[str] = ()) -> onnx.ModelProto:
    """The graph as ONNX Runtime executes it on this machine, after all its optimisations."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "executed.onnx"
        settings = options()
        settings.optimized_model_filepath = str(path)
        open_session(model, disabled, settings=settings)
        return onnx.load(path)


def feed(names: Sequence[str], inputs: Inputs) -> Feed:
    """What a session takes for one batch."""
    return {
        name: np.ascontiguousarray(tensor.detach().numpy())
        for name, tensor in zip(names, tensors(inputs), strict=True)
    }


def run(
    session: ort.InferenceSession, names: Sequence[str], inputs: Inputs, batch: int = BATCH
) -> NDArray[np.float32]:
    """Outputs [N, K] of a session for N samples. Raises `ModelError` where the model fails."""
    found = []
    for start in range(0, count(inputs), batch):
        try:
            found.append(session.run(None, feed(names, take(inputs, start, start + batch)))[0])
        except Exception as error:  # ONNX Runtime has a class of its own for each status
            said = str(error).strip().splitlines()[0]
            last = min(start + batch, count(inputs)) - 1
            raise ModelError(
                f"The exported model failed on samples {start} to {last}: {said}",
                "A model whose steps depend on the size of the batch cannot be exported so that "
                "the batch stays free.",
            ) from error
    return np.concatenate([f.reshape(len(f), -1) for f in found]).astype(np.float32)
