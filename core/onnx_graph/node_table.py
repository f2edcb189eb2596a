"""The nodes of an exported ONNX graph, and which layer each of them belongs to.

A node table is plain data that is kept beside an analysis (`onnx_nodes.json`) or read from an
ONNX file, so that a page can check names without the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import msgspec

from core.errors import MapError, check_names
from core.files import FileKind
from core.layers import ROOT, Layer, LayerTable

SUFFIX = ".onnx"
"""Of the name of a file."""
SCHEMA_VERSION = 1
MAX_NODES = 200_000
TABLES = FileKind(
    MapError, 64 * 10**6, "Write one with `python -m core nodes DIR --onnx model.onnx`.",
    is_none="is no node table", version=SCHEMA_VERSION, older="Write the node table again.",
)  # fmt: skip

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum")
TYPES_OF: Mapping[str, tuple[str, ...]] = {
    "linear": ("Gemm", "MatMul"),
    "matmul": ("MatMul", "Einsum"),
    "conv": ("Conv", "ConvTranspose"),
    "embedding": ("Gather",),
}
"""Kinds of operation that integers matter for -> types of nodes that carry them."""

RECURRENT = ("LSTM", "GRU", "RNN")
AFTER_PRODUCT = ("BatchNormalization", "Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSwish")
"""Types of nodes that runtimes execute inside the product before them."""


class Node(msgspec.Struct, frozen=True):
    """One node: `module` is the path of the module it came from, "" for the model itself."""

    name: str
    op_type: str
    module: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class NodeTable(msgspec.Struct, frozen=True):
    """All nodes of a graph in order. `origin` says what wrote the graph."""

    schema_version: int
    origin: str
    nodes: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Graph:
    """A node table laid over a model's layers. `owner` is each node's layer, "" for none."""

    nodes: tuple[Node, ...]
    owner: tuple[str, ...]
    origin: str

    @cached_property
    def of(self) -> dict[str, tuple[Node, ...]]:
        """Nodes of each layer that has any, in order."""
        found: dict[str, list[Node]] = {}
        for node, layer in zip(self.nodes, self.owner, strict=True):
            if layer:
                found.setdefault(layer, []).append(node)
        return {layer: tuple(nodes) for layer, nodes in found.items()}

    @cached_property
    def held(self) -> frozenset[str]:
        """Tensors that nodes read and none gives: constants, and what the model is given."""
        given = {tensor for node in self.nodes for tensor in node.outputs}
        return frozenset(t for node in self.nodes for t in node.inputs) - given

    @cached_property
    def fused(self) -> tuple[tuple[Node, ...], ...]:
        """Nodes that a runtime executes as one kernel: a product, its bias, its activation."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for tensor in node.inputs:
                readers.setdefault(tensor, []).append(node)
        produced = {tensor for node in self.nodes for tensor in node.outputs}
        groups = []
        for node in self.nodes:
            if node.op_type not in PRODUCTS:
                continue
            group, last = [node], node
            while len(readers.get(last.outputs[0], ())) == 1:
                after = readers[last.outputs[0]][0]
                bias = after.op_type == "Add" and any(
                    t not in produced and t != last.outputs[0] for t in after.inputs
                )
                if not bias and after.op_type not in AFTER_PRODUCT:
                    break
                group.append(after)
                last = after
            if len(group) > 1:
                groups.append(tuple(group))
        return tuple(groups)

    @cached_property
    def owner_of(self) -> dict[str, str]:
        """Layer by node name."""
        return {n.name: layer for n, layer in zip(self.nodes, self.owner, strict=True)}


def carriers(layer: Layer, nodes: Iterable[Node]) -> tuple[Node, ...]:
    """The nodes of `layer` that a precision is about: its products and look-ups where it has
    any, all but shape arithmetic otherwise.
    """
    given = tuple(nodes)
    kinds = {kind for kind, _ in layer.operations}
    wanted = {t for kind in kinds for t in TYPES_OF.get(kind, ())}
    if layer.kind in RECURRENT:
        wanted |= set(RECURRENT)
    found = tuple(n for n in given if n.op_type in wanted and not _only_picks(n, layer))
    return found or tuple(n for n in given if n.op_type not in SHAPES)


def _only_picks(node: Node, layer: Layer) -> bool:
    """Whether a Gather picks from an activation and looks nothing up in the layer's table."""
    tables = {t.name for t in layer.tensors if t.kind == "table"}
    return node.op_type == "Gather" and bool(tables) and not tables & set(node.inputs)


SHAPES = frozenset(
    [
        "Shape",
        "Reshape",
        "Transpose",
        "Unsqueeze",
        "Squeeze",
        "Concat",
        "Slice",
        "Gather",
        "Cast",
        "Constant",
        "ConstantOfShape",
        "Expand",
        "Identity",
        "Range",
        "Flatten",
        "Split",
    ]
)
"""Types of nodes that move values and compute none."""


def lay_over(table: NodeTable, layers: LayerTable, where: str = "The graph") -> Graph:
    """Give every node its layer: the longest layer whose path the node's module lies under.

    Raises `MapError` where node names are missing or repeated, and where a layer that computes
    products has no node, with the nearest names that the graph has.
    """
    counts = Counter(node.name for node in table.nodes)
    twice = [name for name, times in counts.items() if times > 1 or not name]
    if twice:
        raise MapError(
            f"{where} has nodes without a name of their own: {', '.join(twice[:3]) or 'empty'}.",
            "Give every node its own name; exporters of PyTorch do.",
        )
    known = {*layers.names, *layers.glue}
    owner = []
    for node in table.nodes:
        place = _owner(node, known, layers)
        owner.append(place if place in layers.index else "")
    graph = Graph(table.nodes, tuple(owner), table.origin)
    missing = [
        layer.name
        for layer in layers
        if {kind for kind, _ in layer.operations} & set(TYPES_OF)
        and not any(
            n.op_type in (*PRODUCTS, *RECURRENT, "Gather") for n in graph.of.get(layer.name, ())
        )
    ]
    check_names(missing, {n.module or n.name for n in table.nodes}, where)
    return graph


def _owner(node: Node, known: set[str], layers: LayerTable) -> str:
    path = node.module
    while path:
        if path in known:
            return path
        path = path.rpartition(".")[0]
    return ROOT if ROOT in layers.index else ""


def to_json(table: NodeTable) -> bytes:
    """The table as a file."""
    return msgspec.json.format(msgspec.json.encode(table), indent=1) + b"\n"


def from_json(raw: bytes, origin: str = "the node table") -> NodeTable:
    """Read a table back; raises `MapError` naming what is wrong."""
    table = TABLES.decode(raw, NodeTable, origin)
    if len(table.nodes) > MAX_NODES:
        raise MapError(f"{origin} has more than {MAX_NODES:,} nodes.", "Check the file.")
    return table
