"""Running a built model: sessions of ONNX Runtime, and the graph that they really execute."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from core.errors import ModelError
from core.numerics.saturation import saturates
from core.onnx_graph.layered_graph import layer_of_node
from core.onnx_graph.session_options import session_options
from core.onnx_graph.surgery import copied

PROVIDERS = ["CPUExecutionProvider"]
COPY = "__own"
_PLAIN = ContextVar("plain sessions", default=False)

Feed = dict[str, NDArray[Any]]


def exact_sums() -> dict[str, str]:
    """Entries of a session's configuration that keep this processor from saturating; none where it
    does not.

    ONNX Runtime then multiplies by weights in uint8, which is exact and slower. It does so wherever
    it is told to, with VNNI too, so only processors that need it are told.
    """
    return {"session.x64quantprecision": "1"} if saturates() and not _PLAIN.get() else {}


@contextmanager
def as_deployed() -> Iterator[None]:
    """Sessions inside are those of a program that knows nothing of `exact_sums`."""
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def serialized(model: onnx.ModelProto) -> bytes:
    """`model` as a session reads it. With `exact_sums` a weight of several kernels is copied: ONNX
    Runtime 1.32 names the weight in uint8 after the one in int8, and stops where it has the name.
    """
    if exact_sums():
        model = copied(model)
        part_weights(model)
    return bytes(model.SerializeToString())


def part_weights(model: onnx.ModelProto) -> list[str]:
    """Every node that reads a dequantized INT8 weight gets one of its own, with its zero point and
    its DequantizeLinear. Returns the weights that were shared.
    """
    constants = {c.name: c for c in model.graph.initializer if c.data_type == TensorProto.INT8}
    reading: dict[str, list[tuple[NodeProto, int]]] = {}
    for node in model.graph.node:
        for slot, given in enumerate(node.input):
            reading.setdefault(given, []).append((node, slot))
    weights = [
        node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    ]
    taken: set[str] = set()
    shared: list[str] = []
    for first in weights:
        given, made = first.input[0], first.output[0]
        for number, (reader, slot) in enumerate(reading.get(made, ())):
            own = first
            if number:
                own = model.graph.node.add()
                own.CopyFrom(first)
                own.name, own.output[0] = f"{first.name}{COPY}{number}", f"{made}{COPY}{number}"
                reader.input[slot] = own.output[0]
            if own.input[0] in taken and given not in shared:
                shared.append(given)
            for place, constant in enumerate(own.input):
                if constant in taken:
                    copy = model.graph.initializer.add()
                    copy.CopyFrom(constants[constant])
                    copy.name = own.input[place] = f"{constant}{COPY}{len(taken)}"
                    taken.add(copy.name)
                elif constant in constants:
                    taken.add(constant)
    return shared


def options(threads: int = 1) -> ort.SessionOptions:
    """How every session here runs, with exact sums where this processor needs them."""
    return session_options(threads, exact_sums())


def open_session(
    model: onnx.ModelProto, disabled: Sequence[str] = (), *, threads: int = 1,
    settings: ort.SessionOptions | None = None,
) -> ort.InferenceSession:  # fmt: skip
    """A session on the CPU, without the graph optimisers named in `disabled`. Raises `ModelError`
    naming the layer where ONNX Runtime refuses the graph.
    """
    try:
        return ort.InferenceSession(
            serialized(model), settings or options(threads), providers=PROVIDERS,
            disabled_optimizers=list(disabled),
        )  # fmt: skip
    except Exception as error:  # ONNX Runtime's errors share no type of their own
        said = str(error).splitlines()[0]
        words = set(re.findall(r"[^\s'\"()]+", said))
        node = next((n for n in model.graph.node if n.name in words), None)
        layer = layer_of_node(node) if node is not None else None
        where = f" in layer {layer!r}" if layer else ""
        raise ModelError(
            f"ONNX Runtime's CPU provider cannot run the graph{where}: {said[:300].rstrip('.')}.",
            "Keep that layer in FP32, or bring the model in float32 throughout; all but build, verify "
            "and profile works without.",
        ) from error


def executed(model: onnx.ModelProto, disabled: Sequence[str] = ()) -> onnx.ModelProto:
    """The graph as ONNX Runtime executes it on this machine, after all its optimisations."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "executed.onnx"
        settings = options()
        settings.optimized_model_filepath = str(path)
        open_session(model, disabled, settings=settings)
        return onnx.load(path)
