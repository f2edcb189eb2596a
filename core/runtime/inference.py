"""Outputs of a built model: batches of a source's inputs through a session of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from core.errors import ModelError, told
from core.onnx_graph.session import Feed
from core.source.batches import Inputs, count, take
from core.source.trees import tensors

BATCH = 100


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
    return np.concatenate(list(run_batches(session, names, inputs, batch)))


def run_batches(
    session: ort.InferenceSession, names: Sequence[str], inputs: Inputs, batch: int = BATCH
) -> Iterator[NDArray[np.float32]]:
    """The outputs that `run` gives, batch by batch, so that not all of them need be held."""
    for start in range(0, count(inputs), batch):
        try:
            found = session.run(None, feed(names, take(inputs, start, start + batch)))[0]
        except Exception as error:  # ONNX Runtime has a class of its own for each status
            last = min(start + batch, count(inputs)) - 1
            raise ModelError(
                f"The exported model failed on samples {start} to {last}: {told(error)}.",
                "A model whose steps depend on the size of the batch cannot be exported so that "
                "the batch stays free.",
            ) from error
        yield found.reshape(len(found), -1).astype(np.float32, copy=False)
