"""Outputs of a built model: batches of a source's inputs through a session of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from core.errors import ModelError
from core.onnx_graph.forms import FEW, fixed_batch
from core.onnx_graph.session import Feed
from core.source.batches import Inputs, count, take
from core.source.onnx_model import run_session
from core.source.trees import tensors

BATCH = 100


def feed(names: Sequence[str], inputs: Inputs) -> Feed:
    """What a session takes for one batch."""
    return {
        name: np.ascontiguousarray(tensor.detach().numpy())
        for name, tensor in zip(names, tensors(inputs), strict=True)
    }


class Runnable(Protocol):
    """A graph that a session was made of: names of its inputs in order, and of what is judged."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs in the order of the source's input tensors."""
        ...

    @property
    def output(self) -> str:
        """The name of the output that is judged."""
        ...


def run(
    session: ort.InferenceSession, graph: Runnable, inputs: Inputs, batch: int = BATCH
) -> NDArray[np.float32]:
    """Outputs [N, K] of a session of `graph` for N samples. Raises `ModelError` where it fails."""
    return np.concatenate(list(run_batches(session, graph, inputs, batch)))


def run_batches(
    session: ort.InferenceSession, graph: Runnable, inputs: Inputs, batch: int = BATCH
) -> Iterator[NDArray[np.float32]]:
    """The outputs that `run` gives, batch by batch, so that not all of them need be held. A sample by
    itself is run as a few copies.
    """
    size = fixed_batch(session) or (FEW if batch == 1 else None)
    for start in range(0, count(inputs), batch):
        given = feed(graph.inputs, take(inputs, start, start + batch))
        try:
            (found,) = run_session(session, (graph.output,), given, size)
        except ModelError as error:
            last = min(start + batch, count(inputs)) - 1
            raise ModelError(
                f"The exported model failed on samples {start} to {last}: {error.cause}",
                "A model whose steps depend on the size of the batch cannot be exported so that "
                "the batch stays free.",
            ) from error
        yield found.reshape(len(found), -1).astype(np.float32, copy=False)
