"""A person's ONNX file, read within bounds: what cannot be measured is refused by name.

Nothing in the file is run here. Data outside it is read from its own folder alone.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from core import files
from core.errors import ModelError
from core.files import FileKind
from core.onnx_graph.node_table import MAX_NODES

MOST_BYTES = 2**31 - 1
"""What a protobuf may have, with what lies beside it."""
FILES = FileKind(ModelError, MOST_BYTES, "Give a file that ONNX Runtime runs.", "is no ONNX model")

OWN_DOMAINS = frozenset(("", "ai.onnx"))
MICROSOFT = "com.microsoft"
QUANTIZED = frozenset(
    (
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger",
        "MatMulInteger", "MatMulIntegerToFloat", "MatMulNBits", "MatMulBnb4", "MatMulFpQ4",
        "GatherBlockQuantized", "BlockQuantize",
    )
)  # fmt: skip
QUANTIZED_STEMS = (
    "QLinear",
    "QAttention",
    "QGemm",
    "QEmbed",
    "QOrdered",
    "QMoE",
    "DynamicQuantize",
)
HELD_IN: dict[int, float] = {TensorProto.INT4: 0.5, TensorProto.UINT4: 0.5}
"""Bytes of a value of a type that NumPy has none for."""

BRING_FLOAT = (
    "Bring the float model that it was made from: precisions are chosen here, and every one is "
    "measured against FP32."
)
BESIDE = "Put the data beside the file."
OWN_OPERATORS = "Express it with operators of ONNX, or bring the PyTorch module that the file was exported from."


@dataclass(frozen=True, eq=False)
class GivenModel:
    """A model as its file holds it, external data included. `sha256` is of its bytes."""

    model: ModelProto
    sha256: str
    origin: str


def read_model(path: Path) -> GivenModel:
    """The model at `path`; raises `ModelError` naming operator and node where it is refused."""
    raw = FILES.read(path)
    return from_bytes(raw, str(path), path.parent)


def from_bytes(raw: bytes, origin: str, folder: Path | None = None) -> GivenModel:
    """`read_model` of a file's bytes; without a `folder` no data may lie outside them."""
    try:
        model = onnx.load_model_from_string(raw)
    except Exception as error:  # protobuf's own errors share no base class
        said = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise ModelError(f"{origin} is no ONNX model: {said}.", FILES.next_step) from error
    if not model.graph.node:
        raise ModelError(f"{origin} is no ONNX model: its graph has no node.", FILES.next_step)
    _check_operators(model, origin)
    _check_order(model.graph, origin)
    reader = _TensorReader(raw, origin, folder)
    for tensor in _tensors(model.graph):
        reader.check(tensor)
    return GivenModel(model, reader.digest.hexdigest(), origin)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs that a node holds in its attributes."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def nodes_of(graph: GraphProto) -> Iterator[NodeProto]:
    """Every node of `graph`, those of branches and loops included."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from nodes_of(inner)


def reads_of(node: NodeProto) -> list[str]:
    """The tensors that a node reads, those that its branches and loops take from outside too."""
    found = [name for name in node.input if name]
    for graph in subgraphs(node):
        found += free_names(graph)
    return list(dict.fromkeys(found))


def readers_of(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """Tensor -> the nodes that read it."""
    found: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in reads_of(node):
            found.setdefault(name, []).append(node)
    return found


def free_names(graph: GraphProto) -> list[str]:
    """Names that `graph` reads and does not define."""
    known = {v.name for v in graph.input} | {c.name for c in graph.initializer}
    known |= {name for node in graph.node for name in node.output}
    read = [name for node in graph.node for name in reads_of(node)]
    return [name for name in (*read, *(v.name for v in graph.output)) if name and name not in known]


def called(node: NodeProto) -> str:
    """A node in a sentence: by its name, or by what it gives where it has none."""
    if node.name:
        return f"node {node.name!r}"
    given = next((name for name in node.output if name), "")
    return f"the node that gives {given!r}" if given else "a node without a name"


def _check_operators(model: ModelProto, origin: str) -> None:
    if model.functions:
        one = model.functions[0]
        raise ModelError(
            f"{origin} has a function of its own, {one.domain}::{one.name}.",
            "Inline it (onnx.inliner.inline_local_functions) and give the file that comes of it.",
        )
    versions = {o.domain: o.version for o in model.opset_import}
    opset = versions.get("", versions.get("ai.onnx", 1))
    for count, node in enumerate(nodes_of(model.graph)):
        if count >= MAX_NODES:
            raise ModelError(
                f"{origin} has more than {MAX_NODES:,} nodes.", "Give a part of the model."
            )
        if node.op_type in QUANTIZED or node.op_type.startswith(QUANTIZED_STEMS):
            raise ModelError(
                f"{origin} is quantized already: {called(node)} is a {node.op_type}.", BRING_FLOAT
            )
        if node.domain in OWN_DOMAINS:
            if not onnx.defs.has(node.op_type, opset, ""):
                raise ModelError(
                    f"{origin} has an unknown operator: {called(node)} is a {node.op_type}, which "
                    f"opset {opset} has not.",
                    OWN_OPERATORS,
                )
        elif node.domain != MICROSOFT:
            raise ModelError(
                f"{origin} has a custom operator: {called(node)} is a "
                f"{node.domain}::{node.op_type}.",
                OWN_OPERATORS,
            )


def _check_order(graph: GraphProto, origin: str) -> None:
    """Every tensor is made once, and before it is read."""
    known = {v.name for v in graph.input} | {c.name for c in graph.initializer} | {""}
    made = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        for name in reads_of(node):
            if name in known:
                continue
            if name in made:
                raise ModelError(
                    f"{origin} is no graph that can be run: {called(node)} reads {name!r} before "
                    "it is made, so that its nodes are out of order or form a cycle.",
                    "Sort its nodes, or export the model again.",
                )
            raise ModelError(
                f"{origin} is no graph that can be run: {called(node)} reads {name!r}, which "
                "nothing makes.",
                "Export the model again.",
            )
        twice = next((name for name in node.output if name and name in known), None)
        if twice is not None:
            raise ModelError(
                f"{origin} is no graph that can be run: {called(node)} makes {twice!r} once more.",
                "Export the model again.",
            )
        known.update(node.output)
    lost = next((v.name for v in graph.output if v.name not in known), None)
    if lost is not None:
        raise ModelError(
            f"{origin} is no graph that can be run: nothing makes its output {lost!r}.",
            "Export the model again.",
        )


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Every tensor that a graph stores: initializers, and values of nodes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        raise ModelError(
            f"Initializer {sparse.values.name!r} is sparse.", "Store it as a dense tensor."
        )
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors
        for inner in subgraphs(node):
            yield from _tensors(inner)


class _TensorReader:
    """Checks the tensors of one file, and puts into them what lies outside it."""

    def __init__(self, raw: bytes, origin: str, folder: Path | None) -> None:
        self.origin, self.folder = origin, folder
        self.digest = hashlib.sha256(raw)
        self._held = len(raw)

    def check(self, tensor: TensorProto) -> None:
        """Refuse a tensor that is not what it says."""
        name, size = tensor.name or "(constant)", math.prod(tensor.dims)
        if any(n < 0 for n in tensor.dims):
            raise self._bad(f"tensor {name!r} has a negative size")
        if tensor.data_location == TensorProto.EXTERNAL:
            self._take_in(tensor)
        if tensor.HasField("raw_data"):
            found = len(tensor.raw_data)
            whole = (
                math.ceil(size * (HELD_IN.get(tensor.data_type) or self._itemsize(tensor))) == found
            )
        else:
            values = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data,
                      tensor.uint64_data, tensor.string_data)  # fmt: skip
            found = sum(len(one) for one in values)
            whole = (
                found in (size, 2 * size) or tensor.data_type in HELD_IN
            )  # complex ones take two
        if not whole:
            raise self._bad(
                f"tensor {name!r} says that it holds {size:,} values, and has {found:,} bytes or "
                "values"
            )

    def _itemsize(self, tensor: TensorProto) -> int:
        try:
            return int(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize)
        except KeyError:
            raise self._bad(f"tensor {tensor.name!r} is of an unknown type") from None

    def _bad(self, what: str, next_step: str = FILES.next_step) -> ModelError:
        return ModelError(f"{self.origin}: {what}.", next_step)

    def _take_in(self, tensor: TensorProto) -> None:
        said = {entry.key: entry.value for entry in tensor.external_data}
        place = said.get("location", "")
        if self.folder is None:
            raise self._bad(
                f"tensor {tensor.name!r} lies outside the file, in {place!r}",
                "Give one file that holds everything (onnx.save without external data).",
            )
        home = self.folder.resolve()
        inside = place and not Path(place).is_absolute() and ".." not in Path(place).parts
        if not inside or not (home / place).resolve().is_relative_to(home):
            raise self._bad(
                f"tensor {tensor.name!r} would be read from {place!r}, outside its folder", BESIDE
            )
        try:
            start, length = int(said.get("offset", 0)), int(said.get("length", -1))
            with files.opened(home / place, links=False) as file:
                size = os.fstat(file.fileno()).st_size
                length = size - start if length < 0 else length
                if start < 0 or length < 0 or start + length > size:
                    raise self._bad(f"tensor {tensor.name!r} is no part of {place!r}")
                self._held += length
                if self._held > MOST_BYTES:
                    raise self._bad(f"the model takes more than {MOST_BYTES // 10**6:,} MB")
                file.seek(start)
                raw = file.read(length)
        except (OSError, ValueError) as error:
            why = files.reason(error) if isinstance(error, OSError) else str(error)
            raise self._bad(
                f"tensor {tensor.name!r} cannot be read from {place!r}: {why}", BESIDE
            ) from error
        self.digest.update(raw)
        tensor.raw_data = raw
        del tensor.external_data[:]
        tensor.data_location = TensorProto.DEFAULT
