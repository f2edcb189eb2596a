"""Whether an exported graph answers as its model for batches of any size.

PyTorch's exporter follows the model once, on two samples. Where the model's code looks at the size
of the batch it takes the way of those two, and says nothing.
"""

from __future__ import annotations

import numpy as np

from core.errors import ModelError
from core.evidence.measure import model_notes
from core.onnx_graph.layered_graph import LayeredGraph
from core.onnx_graph.session import open_session
from core.runtime.inference import run
from core.source.batches import Inputs, count, run_batch, state_kept, take
from core.source.contract import ModelSource
from core.source.kinds import is_graph

SIZES = (1, 2, 16, 100)
TOLERANCE = 1e-2
"""Of the outputs' size: far above the order of summation, below what another way gives."""

OTHERWISE = (
    "The file holds one way through the model: for batches of {} samples its outputs in FP32 are "
    "not those of the model{}."
)
CAUSES = {
    model_notes.KEEPS_STATE: "keeps state from call to call",
    model_notes.RANDOM: "draws random numbers",
    model_notes.BATCH: "does something else for batches of other sizes",
}
NEXT = {
    model_notes.KEEPS_STATE: "Start every call of forward from the same state.",
    model_notes.RANDOM: "Draw no random numbers in forward.",
    model_notes.BATCH: "Compute the same for every size of the batch: a file holds one way for all.",
}


def notes(source: ModelSource, graph: LayeredGraph) -> tuple[str, ...]:
    """A sentence that names the sizes at which `graph` and the model of `source` differ, if any,
    on calibration samples. Does not change the model.
    """
    if is_graph(source.model):
        return ()  # the graph is the model
    inputs = source.calibration.inputs
    session = open_session(graph.model)
    apart = []
    for size in sorted({min(size, count(inputs)) for size in SIZES}):
        batch = take(inputs, 0, size)
        with state_kept(source.model):
            expected = run_batch(source.model, batch, source.output).numpy()
        try:
            found = run(session, graph, batch)
        except ModelError:  # with its size fixed it takes no other
            apart.append(size)
            continue
        within = TOLERANCE * max(float(np.abs(expected).max(initial=0)), 1e-30)
        if found.shape != expected.shape or not np.allclose(found, expected, rtol=0, atol=within):
            apart.append(size)
    if not apart:
        return ()
    *first, last = map(str, apart)
    why = cause(source, inputs)
    which = f", which {CAUSES[why]}" if why else ""
    return (OTHERWISE.format(f"{', '.join(first)} and {last}" if first else last, which),)


def cause(source: ModelSource, inputs: Inputs) -> str:
    """Why no file answers as the model of `source` on `inputs`: a key of `CAUSES`, empty where that
    is not known.
    """
    return next((note for note in model_notes.forward_notes(source, inputs) if note in CAUSES), "")
